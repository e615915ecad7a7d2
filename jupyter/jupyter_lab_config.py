"""JupyterLab as the lab starts it: nothing leaves the machine, and links between folders work.

`make lab` names this folder in JUPYTER_CONFIG_PATH, so the reader's own settings stay in force.
"""

from pathlib import Path

c = get_config()  # noqa: F821  # what Jupyter gives to a file of settings

c.ServerApp.root_dir = str(Path(__file__).resolve().parent.parent)
# Each of these three would ask a host on the network by itself.
c.LabApp.extension_manager = "readonly"
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
