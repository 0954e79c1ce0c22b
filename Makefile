# A handful of targets; each is one command that can be typed by hand too.
.PHONY: install test fast lint bench matrix default arm64

install:            ## this checkout, editable, with the tools of development
	pip install -e '.[dev]'

test:               ## everything, as CI runs it
	pytest

fast:               ## without the tests that run converters
	pytest -m 'not heavy'

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

matrix:             ## every structure through every recipe, to docs/matrix.md; half an hour
	python benchmarks/matrix.py

default:            ## the main job on the embedded model, from nothing
	wb recipe mobile-int8 --no-cache
