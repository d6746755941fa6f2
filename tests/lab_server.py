"""JupyterLab for tests in a browser: started in folders of its own, driven through its own commands."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

NO_DELAY = "--ServerApp.kernel_websocket_connection_class=species_wb.apps.no_delay.NoDelayConnection"
PANEL = "() => { const w = window.jupyterapp && window.jupyterapp.shell.currentWidget; return w && w.context && w.sessionContext ? w : null; }"
READY = f"""async () => {{
  const panel = ({PANEL})();
  await panel.context.ready; await panel.sessionContext.ready;
  await panel.sessionContext.session.kernel.info;
  return panel.sessionContext.session.kernel.id;
}}"""
RUN = """async () => {
  await window.jupyterapp.commands.execute('notebook:run-all-cells');
  const cells = window.jupyterapp.shell.currentWidget.context.model.toJSON().cells;
  return cells.flatMap(c => (c.outputs || []).filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue));
}"""


def private(folder: Path, workspace: Path | None = None) -> dict[str, str]:
    "An environment in which Jupyter and IPython read and write in one folder only."
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}', encoding="utf-8")
    names = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython",
             "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}  # fmt: skip
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "IPYTHON", "JPY_"))}
    home = {"SPECIES_WB_HOME": str(workspace)} if workspace else {}
    return {**kept, **{name: str(folder / sub) for name, sub in names.items()}, "PYDEVD_DISABLE_FILE_VALIDATION": "1", **home}


class LabServer:
    "A JupyterLab without a token on a free port of 127.0.0.1, whose root is the workspace; `with LabServer(...) as lab:` ends it."

    def __init__(
        self,
        workspace: Path,  # Lab's root folder, and SPECIES_WB_HOME of its kernels
        notebooks: list[Path] = (),  # copied into the workspace unless they are there already
        no_delay: bool = False,  # the connection class of species_wb.apps.no_delay
        environment: dict[str, str] | None = None,  # further variables for server and kernels
        options: list[str] = (),  # further options of `jupyter lab`
        wait: float = 180,  # seconds that it may take to start
    ) -> None:
        self.workspace, self.folder = Path(workspace), Path(tempfile.mkdtemp(prefix="lab-"))
        for notebook in map(Path, notebooks):
            if notebook.resolve().parent != self.workspace.resolve():
                shutil.copy(notebook, self.workspace / notebook.name)
        self.log = self.folder / "lab.log"
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0", f"--ServerApp.root_dir={self.workspace}",
                   "--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True", "--allow-root", "--ServerApp.answer_yes=True", *([NO_DELAY] if no_delay else []), *options]  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.workspace,
                                            env={**private(self.folder, self.workspace), **(environment or {})})  # of the tests' own process group: it ends with them  # fmt: skip
        try:
            self.url = self._started(wait)
        except BaseException:
            self.stop()
            raise

    def _started(self, wait: float) -> str:
        "Wait for the file that jupyter_server writes just before it listens, and until it does; return its address, with / at the end."
        info, until = self.folder / "runtime" / f"jpserver-{self.process.pid}.json", time.monotonic() + wait
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            try:
                said = json.loads(info.read_text(encoding="utf-8"))
                socket.create_connection(("127.0.0.1", said["port"]), timeout=5).close()
                return said["url"]
            except (OSError, ValueError):
                time.sleep(0.1)
        raise AssertionError("JupyterLab did not start:\n" + self.said()[-3000:])

    def said(self) -> str:
        "Everything that server and kernels wrote."
        return self.log.read_text(encoding="utf-8", errors="replace")

    def open(self, context, name: str, wait: float = 180):
        "Open a notebook of the workspace in a new page of a Playwright browser or browser context; wait until its kernel answers."
        page = context.new_page()
        page.set_default_timeout(wait * 1000)
        page.goto(f"{self.url}lab/tree/{quote(name)}?reset")
        page.wait_for_function(PANEL)
        self.ready(page)
        return page

    def ready(self, page) -> str:
        "Wait for notebook and kernel, close a dialog that is open; return the kernel's id."
        kernel = page.evaluate(READY)
        for _ in range(5):
            if not page.locator(".jp-Dialog").count():
                break
            page.keyboard.press("Escape")
            page.wait_for_timeout(100)
        return kernel

    def run_all(self, page) -> None:
        "Run every cell and wait until the last is done; a cell that fails is an error here."
        failed = page.evaluate(RUN)
        assert not failed, failed

    def restart_kernel(self, page) -> None:
        "Restart the kernel without asking, and wait until it answers."
        page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
        self.ready(page)

    def close_notebook(self, page) -> None:
        "Save the notebook and close it; its kernel stays."
        page.evaluate("async () => { const p = window.jupyterapp.shell.currentWidget; await p.context.save(); p.dispose(); }")

    def stop(self) -> None:
        "End the server and its kernels, and remove its folders."
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "LabServer":
        return self

    def __exit__(self, *_) -> None:
        self.stop()
