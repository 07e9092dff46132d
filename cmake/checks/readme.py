"""What README shows works: its example is the one that is compiled, and a kernel copied as it says compiles alone.

usage: readme.py <root of the project> <compiler command with its include options>...
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

root = pathlib.Path(sys.argv[1]).resolve()
compiler = sys.argv[2:]
readme = (root / "README.md").read_text()

shown = re.search(r"```cpp\n(.*?)```", readme, re.S).group(1)
compiled = (root / "examples/quick_start.cpp").read_text()
if shown != compiled:
    sys.exit("README.md: its example is not examples/quick_start.cpp")

section = re.search(r"\n## Copying one kernel\n(.*?)\n## ", readme, re.S).group(1)
commands = re.findall(r"^    (.*)$", section, re.M)
kernel = re.search(r"kernels/(\w+\.hpp)\) is its contract", section).group(1)
with tempfile.TemporaryDirectory() as directory:
    shutil.copytree(root / "include", f"{directory}/include")
    subprocess.run(["sh", "-e", "-c", "\n".join(commands)], cwd=directory, check=True)
    source = pathlib.Path(directory, "copied.cpp")
    source.write_text(f"#include <deft/kernels/{kernel}>\n")
    subprocess.run([*compiler, "-std=c++17", "-fsyntax-only", "-I", f"{directory}/my_runtime", source], check=True)
