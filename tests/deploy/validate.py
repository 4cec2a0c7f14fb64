"""Validates manifests from standard input against the Kubernetes schema and prints them as JSON: validate.py VERSION"""

import json
import sys

import kubernetes_validate
import yaml

resources = [resource for resource in yaml.safe_load_all(sys.stdin) if resource]
for resource in resources:
    name = f"{resource.get('kind')} {resource.get('metadata', {}).get('name')}"
    try:
        kubernetes_validate.validate(resource, sys.argv[1], strict=True)
    except kubernetes_validate.ValidationError as error:
        sys.exit(f"{name}: {'.'.join(map(str, error.path))}: {error.message}")
    except kubernetes_validate.SchemaNotFoundError as error:
        sys.exit(f"{name}: there is no schema for {error}")
json.dump(resources, sys.stdout)
