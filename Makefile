# `make run` and `make test` do all the set-up themselves; see docs/development.md.
export ONCE CONCEDE SANITIZE ALL CTEST_ARGS
PREFIX ?= /usr/local

.PHONY: help install deb images run test test-sanitizers campaign fuzz bench lint fmt clean

help:
	@echo 'make run              set up, build, start creeld and show what a sandbox withstands'
	@echo '     run ONCE=1       the same, ending after the tour; fails unless every wall held'
	@echo 'make test             set up, build and run all tests (SANITIZE=1: with the sanitizers)'
	@echo 'make test-sanitizers  the sanitizer builds and their tests only'
	@echo 'make campaign         the long tests: 200 kills, 20 freezes of fifty, a soak of ten minutes'
	@echo 'make fuzz             each fuzz target for a minute, from its corpus'
	@echo 'make bench            measure, side by side with Docker; writes build/bench.json'
	@echo 'make lint             format, scripts, protos, clang, clang-tidy (ALL=1: on every file)'
	@echo 'make fmt              format the code'
	@echo 'make install          build, and install below PREFIX (/usr/local); DESTDIR as usual'
	@echo 'make deb              build, and make build/release/package/creel_VERSION_ARCH.deb'
	@echo 'make images           build, and make the images creel and creel-sandbox of it'
	@echo 'make clean            remove build/'

run:
	@docker/setup/run.sh

test:
	@docker/setup/test.sh

test-sanitizers:
	@docker/setup/test.sh sanitizers

campaign:
	@docker/setup/campaign.sh

fuzz:
	@docker/setup/fuzz.sh

bench:
	@docker/setup/bench.sh

lint:
	@docker/setup/lint.sh

fmt:
	@docker/setup/packages.sh lint
	@git ls-files --cached --others --exclude-standard -- '*.cc' '*.h' '*.c' \
	  | xargs clang-format-14 -i

install: installed
	@cmake --install build/release --prefix "$(PREFIX)" --strip

deb: installed
	@docker/setup/packages.sh package
	@cpack -G DEB --config build/release/CPackConfig.cmake -B build/release/package

images: installed
	@docker/setup/sandbox-image.sh
	@docker/setup/supervisor-image.sh

.PHONY: installed
installed:
	@docker/setup/packages.sh build
	@docker/setup/build.sh release creel_installed

clean:
	rm -rf build
