# make train            train the default model on a simulated survey and write a report
# make train ARCH=resnet50 PHOTOS="my photos" EPOCHS=5 …   any parameter of nbs/train.ipynb, in capitals
# make test             all quick tests, WORKERS=2 at a time;  make test-slow: the long ones
# make lint, lab, example, readme, map, clean

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Whatever stands on make's command line (but for make's own PYTHON, VENV and WORKERS) goes to the notebook as a parameter.
quote = '$(subst ','\'',$(1))'
given := $(filter-out PYTHON VENV WORKERS,$(foreach v,$(.VARIABLES),$(if $(filter command line,$(origin $(v))),$(v))))
given := $(foreach v,$(given),$(if $(filter $(v),MAKEFLAGS MAKEOVERRIDES -*-command-variables-*-),,$(v)))
options = $(if $(filter-out 0 no No false False,$(DAMAGED)),--damaged) $(foreach v,$(filter-out DAMAGED,$(given)),--$(shell echo $(v) | tr A-Z_ a-z-) $(call quote,$($(v))))

.PHONY: train test test-slow lint lab example readme map clean

train: $(VENV)/.train
	@$(BIN)/species-wb train $(options)

# These hold PyTorch in the tests' own processes; apart from the others, which start it in processes of theirs, everything together takes about 3 GB.
WITH_TORCH := $(addprefix tests/,models/test_architectures.py models/test_int8.py models/test_ready_made.py train/test_finetune.py train/test_detection_probe.py train/test_fit.py train/test_add_species.py metrics/test_scores.py test_taxa.py)

# The examples in the library's notebooks: those of the rooms that hold PyTorch one after another, beside them all others. Each further process would import PyTorch again (7 s) and hold a GB more.
EXAMPLES := OMP_NUM_THREADS=1 $(BIN)/nbdev_test

QUICK := $(BIN)/pytest -m "not slow" -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: $(VENV)/.dev
ifndef SWB_ONLY
	@echo "All quick tests, in three parts: ten to fifteen minutes on two cores. First the examples in the library's notebooks, a minute or two with few words."
	@$(EXAMPLES) --path nbs/lib --skip_folder_re '^([_.]|models$$|train$$)' --n_workers 2 & others=$$!; failed=0; \
	for room in models train; do $(EXAMPLES) --path nbs/lib/$$room --n_workers 1 || failed=1; done; \
	wait $$others && exit $$failed
	$(QUICK) $(WITH_TORCH:%=--ignore=%)
	$(QUICK) $(WITH_TORCH)
else
	$(QUICK)
endif

# The long tests; and the tests with made-up examples (hypothesis) again, with other examples and more of them.
test-slow: $(VENV)/.dev
	SWB_EXAMPLES=20 $(BIN)/pytest -m "slow or hypothesis"

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/mypy

lab: $(VENV)/.train $(VENV)/.lab
	$(BIN)/jupyter lab --notebook-dir=. --ServerApp.ip=127.0.0.1 --ServerApp.kernel_websocket_connection_class=species_wb.apps.no_delay.NoDelayConnection

# The tracked example: a report on simulated photos, and pictures of it and of the live notebook for the README where Chromium is there.
example: $(VENV)/.train
	rm -rf .cache/example
	$(BIN)/species-wb train efficientnet_lite0 --run .cache/example
	mkdir -p reports/example && cp .cache/example/report.html reports/example/report.html
	-chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1000,1300 --screenshot=reports/example/report.png reports/example/report.html 2>/dev/null
	-$(BIN)/python benchmarks/screens.py .cache/screens --run .cache/example --only light-1280 >/dev/null && cp .cache/screens/camera-running-light-1280.png reports/example/live.png && cp .cache/screens/explorer-map-light-1280.png reports/example/explorer.png

readme: $(VENV)/.dev
	$(BIN)/nbdev_export
	$(BIN)/jupyter nbconvert --to markdown --RegexRemovePreprocessor.patterns='^#\|\s*hide' --output-dir=. --output=README nbs/index.ipynb

# The map of rooms and modules: a section of CONTRIBUTING.md, and a README.md in each room's folder.
map: $(VENV)/.dev
	$(BIN)/python benchmarks/house.py --map

clean:
	rm -rf .cache build dist _proc .pytest_cache .ruff_cache .mypy_cache *.egg-info

# An environment with what a target needs; made again when the requirements change.
$(VENV)/.%: settings.ini setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "species_wb needs Python 3.11 or newer; this is " + sys.version.split()[0] + ": use make PYTHON=python3.11 …")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing packages: some minutes and several GB the first time. Nothing is printed until they are there …"
	@$(BIN)/python -m pip install --quiet --quiet --no-compile --constraint constraints.txt --editable '.[$*]'
	@$(BIN)/python -m compileall -q -j 0 -x '/(tests?|testing|ray|sympy|triton|openvino|pip|mypy|mypyc|networkx|pyro|tensorboard|torchgen|graphql|_inductor)/' $(VENV)/lib >/dev/null 2>&1 || true # what is often imported: pip does all of it with one core; a few packages carry files of other Pythons
	@touch $@
