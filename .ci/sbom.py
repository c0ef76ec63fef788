"""Write the bill of materials of the locked environment as CycloneDX JSON: `sbom.py requirements.lock sbom.json`.

It has no time and no random serial number, so that the same lock gives the same file.
"""

import json
import re
import sys
import tomllib
import uuid
from pathlib import Path

PACKAGE = re.compile(r"^([\w.-]+)==([\w.!]+)(?: ; (.*?))? \\$")
HASH = re.compile(r"^ {4}--hash=sha256:([0-9a-f]{64})")


def components(lock: str) -> list[dict]:
    """One component for each package of a lock, with the hashes of its files and the marker that asks for it."""
    found: list[dict] = []
    for line in lock.splitlines():
        if match := PACKAGE.match(line):
            name, version, marker = match.groups()
            address = f"pkg:pypi/{name}@{version}"
            found.append({"type": "library", "bom-ref": address, "name": name, "version": version, "purl": address})
            found[-1]["hashes"] = []
            if marker:
                found[-1]["bom-ref"] += f"?{uuid.uuid5(uuid.NAMESPACE_URL, marker)}"
                found[-1]["properties"] = [{"name": "bbqrec:marker", "value": marker}]
        elif match := HASH.match(line):
            found[-1]["hashes"].append({"alg": "SHA-256", "content": match[1]})
    return found


def bill(lock: str, project: dict) -> dict:
    """The bill of a lock. Args: project: the table of that name in pyproject.toml."""
    parts = components(lock)
    own = f"pkg:pypi/{project['name']}@{project['version']}"
    about = {"type": "application", "bom-ref": own, "name": project["name"], "version": project["version"], "purl": own}
    about["licenses"] = [{"license": {"id": project["license"]}}]
    serial = uuid.uuid5(uuid.NAMESPACE_URL, own + lock)
    told = {"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{serial}", "version": 1}
    needs = [{"ref": own, "dependsOn": [part["bom-ref"] for part in parts]}]
    return told | {"metadata": {"component": about}, "components": parts, "dependencies": needs}


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    project = tomllib.loads((source.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(bill(source.read_text(encoding="utf-8"), project), indent=1) + "\n", encoding="utf-8")
    print(target)
