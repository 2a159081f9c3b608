"""Save runs of Ansible what each would do anew in tests. Python imports this at its start from a folder on PYTHONPATH.

Code is kept in the folder GLM_COMPILED (``code_kept.py``), and programs of Ansible keep more there (``assembled.py``).
On the hosts of tests, ``on_hosts.pth`` does the first. Users run without.
"""

from __future__ import annotations

import os

_folder = os.environ.get("GLM_COMPILED")
if _folder:
    import code_kept

    code_kept.install(_folder)
    if code_kept.program().startswith("ansible"):
        import assembled

        assembled.install(_folder)
