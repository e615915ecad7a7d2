"""JupyterLab as the lab starts it: nothing leaves the machine, and links between folders work.

`make lab` names this folder in JUPYTER_CONFIG_PATH, so the reader's own settings stay in force.
"""

import atexit
import os
import shutil
import socket
import tempfile
import uuid
from pathlib import Path

from jupyter_core.paths import jupyter_runtime_dir

c = get_config()  # noqa: F821  # what Jupyter gives to a file of settings

c.ServerApp.root_dir = str(Path(__file__).resolve().parent.parent)
# Each of these three would ask a host on the network by itself.
c.LabApp.extension_manager = "readonly"
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"


def takes_sockets(folder: Path) -> bool:
    """Return whether a kernel's sockets can lie there: the disk allows it, no name is too long."""
    path = folder / f"kernel-{uuid.uuid4()}-ipc-5"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
        path.unlink()
    except OSError:
        return False
    return True


# Over TCP, Jupyter's default, everyone with an account here could read what a kernel says.
# The folder of the sockets is their owner's alone.
c.KernelManager.transport = "ipc"
if not takes_sockets(Path(jupyter_runtime_dir())):
    os.environ["JUPYTER_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="qwqlab-", dir="/tmp")
    atexit.register(shutil.rmtree, os.environ["JUPYTER_RUNTIME_DIR"], ignore_errors=True)
