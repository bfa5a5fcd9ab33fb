"""The checks of `make lint` on packages, on made-up reports."""

from tools.dependency_checks import audit_findings, licence_findings, required_packages


def test_weaknesses_are_named_with_their_remedy():
    report = {
        "dependencies": [
            {"name": "one", "version": "1.0", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"]}]},
            {"name": "two", "version": "2.0", "vulns": []},
            {"name": "three", "skip_reason": "not found"},
        ]
    }
    assert audit_findings(report) == (["one 1.0: CVE-1, fixed in 1.1"], 2)


def test_licences_that_do_not_go_with_mit_are_named():
    licences = {
        "a": "MIT License",
        "b": "GPL-3.0",
        "c": "GNU Lesser General Public License v3 (LGPLv3)",
        "d": "LGPL-2.1-or-later",
        "e": "GNU Affero General Public License",
        "f": "UNKNOWN",
        "g": "BSD-3-Clause AND MIT",
        "unused": "GPL-2.0",
        "nvidia-cublas": "Other/Proprietary License",
    }
    found = licence_findings(licences, set(licences) - {"unused"})
    assert [line.partition(":")[0] for line in found] == ["b", "e", "f"]


def test_what_the_project_needs_is_followed_through_its_packages():
    needed = required_packages()
    assert {"torch", "pillow", "sympy"} <= needed and "maskgil" not in needed and "pytest" not in needed
