// Draws the saved state of widgets without a kernel, with the scripts of ipywidgets and anywidget.
// Those scripts expect the classic notebook. This file mocks the part of it that they need for a saved state.
(function () {
  "use strict";
  const VIEW = "application/vnd.jupyter.widget-view+json", STATE = "application/vnd.jupyter.widget-state+json";
  const here = new URL(".", document.currentScript.src).href;
  const nothing = () => {};
  let draw = null;

  // Shows the content of an Output widget.
  class OutputArea {
    constructor(options) { this.box = options.selector; }
    static register(kind, drawer) { draw = drawer; }
    register_mime_type(kind, drawer) { OutputArea.register(kind, drawer); }
    clear_output() { this.box.replaceChildren(); }
    fromJSON(outputs) {
      for (const output of outputs) {
        const data = output.data || {}, part = document.createElement("div");
        if (data["text/html"]) part.innerHTML = [data["text/html"]].flat().join("");
        else part.textContent = [data["text/plain"] || output.text || output.evalue || ""].flat().join("");
        this.box.append(part);
      }
    }
  }

  function drawAll() {
    for (const node of document.querySelectorAll(".bb-widget")) {
      const output = { create_output_subarea: () => [node], handle_output: nothing, handle_clear_output: nothing };
      output.keyboard_manager = { register_events: nothing };
      draw.call(output, { model_id: node.dataset.model }, {}, { append: nothing });
    }
  }

  function notebook() {
    const comms = { register_target: nothing };
    // The scripts check that this function has six parameters. Its error makes them use the saved state.
    comms.new_comm = (target, data, callbacks, metadata, id, buffers) => { throw new Error("no kernel"); };
    const kernel = { comm_manager: comms, is_connected: () => true };
    kernel.comm_info = (target, done) => done({ content: { comms: {} } });
    comms.kernel = kernel;
    const cell = { output_area: { outputs: [{ data: { [VIEW]: {} } }] } };
    const keys = { actions: { register: nothing }, register_events: nothing };
    return {
      kernel, metadata: { widgets: { [STATE]: window.bbWidgets } }, keyboard_manager: keys, events: { on: nothing },
      container: { on: nothing }, get_cells: () => [cell], render_cell_output: drawAll,
    };
  }

  function start() {
    const menu = document.createElement("div");
    menu.hidden = true;
    menu.innerHTML = '<div><a id="help_menu"></a></div>';
    document.body.append(menu);
    const actions = { register: nothing, get: () => ({ handler: nothing }) };
    window.Jupyter = { version: "6.5.7", notebook: notebook(), menubar: { actions }, notification_area: { widget: nothing } };
    const controls = "nbextensions/jupyter-js-widgets/extension";
    window.requirejs.config({ baseUrl: here, paths: { [controls]: "controls", anywidget: "anywidget" } });
    window.define("base/js/namespace", window.Jupyter);
    window.define("base/js/events", window.Jupyter.notebook.events);
    window.define("notebook/js/outputarea", { OutputArea });
    window.requirejs([controls], scripts => scripts.load_ipython_extension());
  }

  // Load RequireJS after all scripts of the theme, because those would use it as their own loader.
  window.addEventListener("load", () => {
    const loader = document.createElement("script");
    loader.src = here + "require.js";
    loader.onload = start;
    document.head.append(loader);
  });
})();
