# Faults, for real: see tests/faults/COVERAGE.md and tests/killpoints/README.md.

.PHONY: faults test-faults

faults: | venv tools ## Faults between the operator, Kubernetes and Consul: those of every day
	$(PYTEST) tests/faults

# WORKERS=3: each process has a cluster of its own, and single tests are given out, since files are very unequal.
test-faults: | venv tools ## All faults: kills before and after each write, every answer; two hours. Writes COVERAGE.md
	$(PY) -m pytest tests/faults -q -m "" $(if $(WORKERS),--numprocesses=$(WORKERS) --dist=worksteal)
	@PYTHONPATH=$(PYTHONPATH):tests:tests/integration $(PY) tests/faults/coverage_table.py
