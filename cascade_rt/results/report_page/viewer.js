"use strict";
// Puts the voxels of the page together and shows them with NiiVue. `volume_data.py` has the other half of this code.
(async () => {
  const one = (id) => document.getElementById(id);
  const status = one("status");
  const tell = (state, text) => {
    status.dataset.state = state;
    status.textContent = text;
  };
  if (!one("settings")) return; // The scan is too large for a viewer; the page has said so.
  const settings = JSON.parse(one("settings").textContent);
  const [slices, rows, cols] = settings.shape;

  const decoded = (id) => Uint8Array.from(atob(one(id).textContent.trim()), (letter) => letter.charCodeAt(0));
  const inflated = async (bytes) => {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };

  // For each of `count` pixels, the two nearest centers of blocks of `factor` pixels and the weight of the second.
  const neighbors = (count, factor) => {
    const blocks = Math.ceil(count / factor);
    return Array.from({ length: count }, (_, pixel) => {
      const place = Math.min(Math.max((pixel + 0.5) / factor - 0.5, 0), blocks - 1);
      const first = Math.floor(place);
      return [first, Math.min(first + 1, blocks - 1), place - first];
    });
  };

  const paste = (voxels, part, values) => {
    const [depth, height, width] = part.size;
    const [z0, row0, col0] = part.start;
    const down = neighbors(height, part.factor);
    const across = neighbors(width, part.factor);
    const [coarseHeight, coarseWidth] = [Math.ceil(height / part.factor), Math.ceil(width / part.factor)];
    for (let z = 0; z < depth; z += 1) {
      for (let row = 0; row < height; row += 1) {
        const [upper, lower, weightDown] = down[row];
        const top = (z * coarseHeight + upper) * coarseWidth;
        const bottom = (z * coarseHeight + lower) * coarseWidth;
        let target = ((z + z0) * rows + row + row0) * cols + col0;
        if (part.factor === 1) {
          voxels.set(values.subarray(top, top + width), target);
          continue;
        }
        for (let col = 0; col < width; col += 1, target += 1) {
          const [left, right, weight] = across[col];
          const above = values[top + left] * (1 - weight) + values[top + right] * weight;
          const below = values[bottom + left] * (1 - weight) + values[bottom + right] * weight;
          voxels[target] = Math.round(above * (1 - weightDown) + below * weightDown);
        }
      }
    }
  };

  const scanFile = async () => {
    const header = decoded("header");
    const file = new Uint8Array(header.length + slices * rows * cols);
    file.set(header);
    const voxels = file.subarray(header.length);
    for (const [number, part] of settings.parts.entries()) paste(voxels, part, await inflated(decoded(`part-${number}`)));
    return file;
  };

  const loadLibrary = async () => {
    // Only a script with the hash of this library may run: see the policy of the page.
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(await inflated(decoded("library")));
    document.head.append(script);
    if (!window.niivue) throw new Error("the viewer was not allowed to run");
  };

  // NiiVue computes gradients of the whole scan for 3D rendering, which there is none of here. Without a graphics card
  // that takes longer than everything else together, so nothing is drawn while the first of its shaders is in use.
  const skipGradients = (nv) => {
    const { gl, blurShader } = nv;
    const use = blurShader.use.bind(blurShader);
    blurShader.use = (context) => {
      use(context);
      gl.enable(gl.RASTERIZER_DISCARD);
    };
    const refresh = nv.refreshLayers.bind(nv);
    nv.refreshLayers = (...layer) => {
      try {
        refresh(...layer);
      } finally {
        gl.disable(gl.RASTERIZER_DISCARD);
      }
    };
  };

  const press = (kind, chosen) => {
    for (const button of document.querySelectorAll(`[data-${kind}]`))
      button.setAttribute("aria-pressed", String(button.dataset[kind] === chosen));
  };

  const start = async () => {
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser has WebGL switched off");
    tell("loading", "Opening the images …");
    await loadLibrary();
    const [file, maskBytes] = await Promise.all([scanFile(), inflated(decoded("mask"))]);
    const voxels = file.subarray(352);
    const labels = maskBytes.subarray(352);
    const { Niivue, NVImage, DRAG_MODE, SLICE_TYPE } = window.niivue;
    for (const id of ["tools", "stage", "readout"]) one(id).hidden = false;
    one("picture").hidden = true;
    const nv = new Niivue({
      isRadiologicalConvention: true, // The default would show the patient's left on the left.
      sagittalNoseLeft: true,
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.95, 0.8, 0.3, 0.55],
      crosshairWidth: 1.1,
      crosshairWidthUnit: "mm",
      crosshairGap: 20,
      maxDrawUndoBitmaps: 1,
      fontColor: [0.92, 0.92, 0.92, 1],
      showAllOrientationMarkers: true,
      dragAndDropEnabled: false,
      isNearestInterpolation: false,
      logLevel: "error",
      loadingText: "",
      mouseEventConfig: {
        leftButton: { primary: DRAG_MODE.crosshair },
        rightButton: DRAG_MODE.windowing,
        centerButton: DRAG_MODE.pan,
      },
    });
    await nv.attachToCanvas(one("canvas"));
    skipGradients(nv);
    const [low, high] = settings.windows[0].range;
    const scan = await NVImage.loadFromUrl({
      url: file.buffer, name: "scan.nii", colormap: "gray", cal_min: low, cal_max: high,
    });
    // The mask is a drawing rather than a second volume: a drawing has a rim as thin as a screen pixel in every plane.
    const [organ, tumor] = settings.colors;
    nv.setDrawColormap({
      R: [0, organ[0], tumor[0]], G: [0, organ[1], tumor[1]], B: [0, organ[2], tumor[2]], A: [0, 255, 255],
      labels: ["", "pancreas", "tumor"],
    });
    nv.addVolume(scan);
    const mask = await NVImage.loadFromUrl({ url: maskBytes.buffer, name: "mask.nii" });
    if (!nv.loadDrawing(mask)) throw new Error("the mask does not fit the scan");

    // Fractions 0 to 1 toward right, anterior and superior, which is how NiiVue counts, to slice, row and column.
    const voxelAt = ([right, anterior, superior]) => {
      const index = (fraction, count) => Math.min(Math.max(Math.floor(fraction * count), 0), count - 1);
      return [index(superior, slices), index(1 - anterior, rows), index(1 - right, cols)];
    };
    const mm = (value, [positive, negative]) => `${value < 0 ? negative : positive} ${Math.abs(value).toFixed(0)}`;
    const readOut = () => {
      const [z, row, col] = voxelAt(nv.scene.crosshairPos);
      const at = (z * rows + row) * cols + col;
      const world = settings.affine.map((line) => line[0] * (z + settings.first) + line[1] * row + line[2] * col + line[3]);
      const places = world.map((value, axis) => mm(value, ["RL", "AP", "SI"][axis]));
      one("place").textContent = `Slice ${z + settings.first + 1} of ${settings.total} · ${places.join("  ")} mm`;
      const code = voxels[at];
      const sign = code === 0 ? "≤ " : code === 255 ? "≥ " : "";
      one("value").textContent = `${sign}${Math.round(settings.low + code * settings.step)} HU`;
      one("label").textContent = ["", "pancreas", "tumor"][labels[at]];
      one("label").dataset.label = labels[at];
      Object.assign(status.dataset, { slice: z + settings.first + 1, row, col, label: labels[at], value: code });
    };
    nv.onLocationChange = readOut;
    const goTo = (fractions) => {
      nv.scene.crosshairPos = fractions.slice();
      nv.drawScene();
      readOut();
    };

    const showMask = (how) => {
      // Where the opacity is 0, NiiVue draws no rim either.
      [nv.drawOpacity, nv.drawRimOpacity] = { outline: [0.002, 1], fill: [0.4, 1], off: [0, -1] }[how];
      nv.drawScene();
      press("mask", how);
    };
    const showWindow = (name) => {
      const chosen = settings.windows.find((preset) => preset.name === name);
      const [least, most] = chosen.range;
      if (scan.cal_min !== least || scan.cal_max !== most) {
        [scan.cal_min, scan.cal_max] = chosen.range;
        nv.updateGLVolume();
      }
      press("window", name);
    };
    const three = [
      { sliceType: SLICE_TYPE.AXIAL, position: [0, 0, 0.6, 1] },
      { sliceType: SLICE_TYPE.CORONAL, position: [0.6, 0, 0.4, 0.5] },
      { sliceType: SLICE_TYPE.SAGITTAL, position: [0.6, 0.5, 0.4, 0.5] },
    ];
    const single = { axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL, sagittal: SLICE_TYPE.SAGITTAL };
    const showView = (name) => {
      if (name === "three") {
        nv.setSliceType(SLICE_TYPE.MULTIPLANAR);
        nv.setCustomLayout(three);
      } else {
        nv.clearCustomLayout();
        nv.setSliceType(single[name]);
      }
      press("view", name);
    };
    const reset = () => {
      nv.setPan2Dxyzmm([0, 0, 0, 1]);
      showWindow(settings.windows[0].name);
      goTo(settings.start);
    };

    const lesions = [...document.querySelectorAll("tr[data-lesion]")].filter((_, number) => settings.lesions[number]);
    const showLesion = (number) => {
      for (const line of lesions) line.setAttribute("aria-current", String(Number(line.dataset.lesion) === number));
      goTo(settings.lesions[number - 1]);
    };
    const followAddress = () => {
      const number = Number(/^#lesion-(\d+)$/.exec(location.hash)?.[1]);
      if (settings.lesions[number - 1]) showLesion(number);
    };
    for (const line of lesions) {
      line.tabIndex = 0;
      line.classList.add("live");
      line.addEventListener("click", () => showLesion(Number(line.dataset.lesion)));
      line.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          line.click();
        }
      });
    }
    for (const [kind, show] of [["view", showView], ["window", showWindow], ["mask", showMask]])
      for (const button of document.querySelectorAll(`[data-${kind}]`))
        button.addEventListener("click", () => show(button.dataset[kind]));
    one("reset").addEventListener("click", reset);
    window.addEventListener("hashchange", followAddress);

    showView(settings.views[0]);
    showMask("outline");
    reset();
    followAddress();
    status.dataset.voxels = nv.volumes[0].img.length;
    status.dataset.highest = labels.reduce((most, label) => Math.max(most, label), 0);
    tell("ready", "");
  };

  try {
    await start();
  } catch (error) {
    for (const id of ["tools", "stage", "readout"]) one(id).hidden = true;
    one("picture").hidden = false;
    tell("failed", `The slices cannot be shown here (${error.message}); the picture above is all there is to see.`);
  }
})();
