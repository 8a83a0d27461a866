# Faults, for real: see tests/faults/COVERAGE.md and tests/killpoints/README.md.

.PHONY: faults test-faults

faults: | venv tools ## Faults between the operator, Kubernetes and Consul: those of every day
	$(PYTEST) tests/faults

test-faults: | venv tools ## All faults: kills before and after each write, every answer; two hours. Writes COVERAGE.md
	$(PY) -m pytest tests/faults -q -m ""
	@PYTHONPATH=$(PYTHONPATH):tests:tests/integration $(PY) tests/faults/coverage_table.py
