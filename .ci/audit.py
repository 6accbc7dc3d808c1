"""make audit: known vulnerabilities of the installed packages, by pip-audit: a line and a list. Always exit code 0.

A package that could not be looked up is counted as such: silence about it would read as safety.
"""

import json
import subprocess
import sys

SECONDS = 300
COMMAND = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--skip-editable"]


def report() -> str:
    """What pip-audit found, or why there is nothing to say."""
    try:
        done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=SECONDS, check=False)
        packages = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return f"no answer from the registry within {SECONDS} s; nothing was audited (is there a network?)"
    except (ValueError, KeyError):
        lines = done.stderr.strip().splitlines() or ["no output"]
        return f"nothing was audited (is there a network? make install?): {lines[-1][:200]}"
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    known = [(package, bug) for package in packages for bug in package.get("vulns", [])]
    looked = len(packages) - len(skipped)
    if not looked:
        return f"none of {len(packages)} packages could be looked up (is there a network?); nothing was audited"
    said = f"{looked} of {len(packages)} packages looked up, {len(known)} known vulnerabilities"
    said += f"; not looked up: {', '.join(skipped[:5])}{', ...' * (len(skipped) > 5)}" if skipped else ""
    lines = [
        f"\n  {package['name']} {package['version']}: {bug['id']}, fixed in {', '.join(bug['fix_versions']) or 'none'}"
        for package, bug in known
    ]
    return said + "".join(lines)


if __name__ == "__main__":
    print(f"pip-audit: {report()}", flush=True)
