"""Install species_wb. Everything it says comes from settings.ini."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="], interpolation=None)
config.read(here / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]

EXTRA = "_requirements"
extras = {key.removesuffix(EXTRA): settings[key].split() for key in settings if key.endswith(EXTRA)}
tools = extras.pop("dev")
extras["all"] = sorted({line for lines in extras.values() for line in lines})
extras["dev"] = extras["all"] + tools

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    license="Apache-2.0",
    keywords=settings["keywords"],
    python_requires=f">={settings['min_python']}",
    packages=find_packages(include=["species_wb", "species_wb.*"]),
    package_data={"species_wb": ["data/**/*"], "species_wb.apps": ["static/**/*"], "species_wb.report": ["report.*"]},
    install_requires=settings["requirements"].split(),
    extras_require=extras,
    entry_points={"console_scripts": [settings["console_scripts"]]},
    zip_safe=False,
)
