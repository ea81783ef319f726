"""The graph that the doctor runs is the one its script makes."""

import onnx

from cascade_rt.engines.smoke_tests import GRAPH_PATH
from cascade_rt_export.doctor_graph import doctor_graph


def test_the_checked_in_graph_is_what_its_script_makes() -> None:
    assert onnx.load(GRAPH_PATH) == doctor_graph()


def test_it_is_a_valid_graph() -> None:
    onnx.checker.check_model(doctor_graph(), full_check=True)
