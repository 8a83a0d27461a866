"""What is made of the Helm chart from other sources: its definitions, part of its schema, its README, kustomize."""
