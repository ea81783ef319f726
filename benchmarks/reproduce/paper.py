"""The tables of Qiu et al. 2024 (Front. Oncol. 14:1328146), and which of their rows can be trained here."""

from dataclasses import dataclass
from typing import Literal

from cascade_rt.common.labels import Target
from cascade_rt.config import Comparator, Variant

TableName = Literal["table1", "table2", "table3", "figure10"]


@dataclass(frozen=True, slots=True)
class Row:
    """One method. With neither a variant nor a network its numbers are quoted, not reproduced."""

    name: str
    dice: float | None = None
    sensitivity: float | None = None
    specificity: float | None = None
    variant: Variant | None = None
    network: Comparator | None = None
    remark: str = ""

    @property
    def method(self) -> str | None:
        """What is trained for it; None where its numbers are quoted. Rows of several tables may share one."""
        return self.variant or self.network


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the paper."""

    title: str
    dataset: Literal["msd", "nih"]
    rows: tuple[Row, ...]

    @property
    def target(self) -> Target:
        """What is looked for; NIH has no tumors."""
        return "organ" if self.dataset == "nih" else "tumor"


_SEARCHED = "an architecture search; quoted"
_NO_CODE = "no well-kept code; quoted"
_IMPOSSIBLE = "Dice above 2 SEN / (1 + SEN), which cannot be; quoted"

TABLES: dict[TableName, Table] = {
    "table1": Table(
        "Table 1: pancreatic tumors",
        "msd",
        (
            Row("U-Net++", 0.4289, 0.3966, 0.9971, network="unet_plus_plus"),
            Row("Attention U-Net", 0.4317, 0.5714, 0.9977, network="attention_unet"),
            Row("ResNet50", 0.4695, 0.6056, 0.9972, remark=_NO_CODE),
            Row("U-Net", 0.4913, 0.6846, 0.9971, network="unet"),
            Row("Res U-Net", 0.5264, 0.7110, 0.9960, network="residual_unet"),
            Row("Dense-UNet", 0.5276, 0.6133, 0.9977, network="dense_unet", remark="MONAI's DenseNet in a U-Net"),
            Row("U-Shiftformer", 0.5307, 0.6833, 0.9970, remark=_NO_CODE),
            Row("nnU-Net", 0.5456, 0.7268, 0.9981, network="dynamic_unet", remark="its network, not its pipeline"),
            Row("HyperSegNAS", 0.5488, 0.7123, 0.9968, remark=_SEARCHED),
            Row("DHT-Net", 0.5618, 0.6779, 0.9975, remark=_NO_CODE),
            Row("C2FNAS", 0.5636, 0.6856, 0.9982, remark=_SEARCHED),
            Row("V-NAS", 0.5730, 0.6325, 0.9942, remark=_SEARCHED),
            Row("IAG-Net", 0.5762, 0.7342, 0.9969, remark=_NO_CODE),
            Row("the paper's cascade", 0.5924, 0.6824, 0.9988, variant="m-p-t-l-f"),
        ),
    ),
    "table2": Table(
        "Table 2: pancreas",
        "nih",
        (
            Row("U-Net", 0.7470, 0.5131, 0.9964, network="unet", remark=_IMPOSSIBLE.removesuffix("; quoted")),
            Row("Attention U-Net", 0.8437, 0.7764, 0.9970, network="attention_unet"),
            Row("Nishio", 0.7890, 0.6883, 0.9977, remark=_NO_CODE),
            Row("Li", 0.8303, 0.7207, 0.9965, remark=_NO_CODE),
            Row("LMNS-Net", 0.8537, 0.8115, 0.9978, remark=_NO_CODE),
            Row("Fixed-point", 0.8257, 0.6294, 0.9968, remark=_IMPOSSIBLE),
            Row("RSTN", 0.8508, 0.8466, 0.9987, remark=_NO_CODE),
            Row("Yu", 0.8453, 0.8009, 0.9972, remark=_NO_CODE),
            Row("Zhang", 0.8490, 0.7852, 0.9975, remark=_NO_CODE),
            Row("RTUNet", 0.8625, 0.8916, 0.9981, remark=_NO_CODE),
            Row("the paper's cascade", 0.8763, 0.9126, 0.9988, variant="m-p-t-l-f"),
        ),
    ),
    "table3": Table(
        "Table 3: what each part brings",
        "msd",
        (
            Row("U", 0.4913, variant="u"),
            Row("M", 0.5234, variant="m"),
            Row("M-P", 0.5319, variant="m-p"),
            Row("M-P-T", 0.5533, variant="m-p-t"),
            Row("M-P-T-L", 0.5651, variant="m-p-t-l"),
            Row("M-P-T-L-F", 0.5924, variant="m-p-t-l-f"),
        ),
    ),
    "figure10": Table(
        "Figure 10: interference (the paper shows pictures, no numbers)",
        "msd",
        (
            Row("neither", variant="no-interference"),
            Row("distraction subtracted", variant="fpd"),
            Row("missed tumor added", variant="fnd"),
            Row("both", variant="m-p-t-l-f"),
        ),
    ),
}
