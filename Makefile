# A handful of targets; each is one command that can be typed by hand too.
.PHONY: install test fast long lint bench matrix default arm64

install:            ## this checkout, editable, with the tools of development
	pip install -e '.[dev]'

test:               ## what CI runs: two workers, all but the long tier
	pytest

fast:               ## what starts no process
	pytest -m unit

long:               ## the long tier: every structure through every recipe, many random nets
	pytest -m matrix

lint:
	ruff check . && ruff format --check . && mypy

bench:              ## prints ratios; nothing fails by them
	python benchmarks/start_up.py
	python benchmarks/overhead.py
	python benchmarks/calibration_memory.py
	python benchmarks/inspect_speed.py
	python benchmarks/dynamic_int8.py
	python benchmarks/devices.py

arm64:              ## the emulated ARM machine for the tests marked arm64
	tests/arm64/target.sh

matrix:             ## every structure through every recipe, checked and written to docs/matrix.md
	WB_WRITE_MATRIX=1 pytest -m matrix tests/test_structures.py

default:            ## the main job on the embedded model, from nothing
	wb recipe mobile-int8 --no-cache
