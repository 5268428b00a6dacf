"""The versions that a run writes down."""

from configs import __version__, versions


def test_versions_name_the_packages_and_the_commit():
    found = versions()
    assert {"python", "torch", "numpy", "timm", "git_commit"} <= found.keys()
    assert all(isinstance(value, str) for value in found.values())


def test_the_project_has_one_version_and_a_run_writes_it_down():
    assert __version__ == "0.1.0"
    assert versions()["project"] == __version__
