# SPDX-License-Identifier: GPL-2.0
#
# The commands of kfabric. What they need beyond git, make, a shell and apt,
# they install or make themselves: see the scripts of the same names.

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := modules
quote = '$(subst ','\'',$(1))'

# make modules KDIR=... is for a kernel tree of your own, with these for its make.
KDIR ?= stock
tools := CC LLVM RUSTC BINDGEN ARCH CROSS_COMPILE V W
given = $(foreach v,$(tools),$(if $(filter command,$(origin $(v))),$(call quote,$(v)=$(value $(v)))))
# Of `make vm`, whose own defaults they would hide here.
export KERNEL CPUS MEM NVDIMM APPEND ICOUNT
export TURN

# First what they need of the host, Python for one: says nothing if it is there.
ready = @scripts/host &&

## demo     the main job, from nothing: a file into another host's memory, a
##          hard kill, and the same file back
.PHONY: demo
demo:
	$(ready) scripts/demo

## test     the tests, of the longest those whose turn it is; TURN=all for all
##          suites, TURN=quarter for a quarter of the turns, TURN=3 for the third;
##          SUITES='a b' runs the named ones
.PHONY: test
test:
	$(ready) scripts/test $(SUITES)

## check    rustfmt, clippy, layers, checkpatch, scripts, documents
.PHONY: check
check:
	$(ready) scripts/check/all $(CHECKS)

## bench    what operations cost, beside memcpy(), and between two guests beside a
##          bare module: a table, build/bench.json and build/bench.svg; some minutes
.PHONY: bench
bench:
	$(ready) scripts/bench

## modules  the modules (the default); KDIR=/path for a kernel tree of your
##          own, with CC= or LLVM= if it needs them
.PHONY: modules
modules:
	@scripts/build $(call quote,$(KDIR)) $(given)

## vm       CMD='...' runs it in a guest with the modules; no CMD: a shell.
##          KERNEL=stock|debug CPUS= MEM= APPEND= NVDIMM=file:size ICOUNT=1;
##          build/share is /mnt/share inside. If CMD fails, its status is
##          said; make itself then exits with 2, as it always does:
##          `scripts/vm run --build -- CMD` exits with CMD's
.PHONY: vm
vm:
	$(ready) scripts/vm run --build $(VMFLAGS) $(if $(value CMD),-- $(call quote,$(value CMD)))

## doc      rustdoc and the pages of Documentation/ as HTML, in build/doc
.PHONY: doc
doc:
	$(ready) scripts/doc

## mutants  each small breakage of a list, and the suite that must notice it
.PHONY: mutants
mutants:
	$(ready) scripts/mutants

## fuzz     feeds made-up bytes to parsers and the protocol's machines, guided
##          by what they reach; FUZZ_SECONDS=60 for each target
export FUZZ_SECONDS
.PHONY: fuzz
fuzz:
	@scripts/fuzz

## clean    removes what was built here; the cache of kernels stays
.PHONY: clean
clean:
	rm -rf build

.DEFAULT:
	@echo "kfabric: error: there is no 'make $@': see 'make help'" >&2; exit 2

## help     this
.PHONY: help
help:
	@sed -n 's/^## \?/  /p' Makefile
