# Triode. `make run` is the shortest way to see it work; `make help` lists the rest.

BUILD := build
ARGS ?=
GUESTS ?=
TIME ?= 600

.PHONY: all help build run test tsan fuzz proof bench lint format check-layers soak l1 coverage guests clean

all: build

help:
	@echo "make build         $(BUILD)/triode"
	@echo "make run           boot the default guest to a shell; ARGS='--smp 2' adds options"
	@echo "make test          everything CI runs"
	@echo "make fuzz          libFuzzer on each target, TIME=600 seconds each; ARGS names targets"
	@echo "make proof         20 million x86-64 and 5 million RISC-V cases beside their oracles; ARGS: how many"
	@echo "make tsan          ThreadSanitizer over threads, vCPUs and the translator"
	@echo "make bench         boot time and memory beside QEMU"
	@echo "make soak          long runs: 50 boots in a row, other kernels, stress-ng; ARGS chooses, TIME=3600: so long"
	@echo "make l1            hypervisors as guests: KVM, QEMU, Xen; ARGS='xen-pvh' chooses, ARGS=--help lists"
	@echo "make lint          clang-format, clang-tidy, cppcheck"
	@echo "make format        let clang-format mend what lint complains about"
	@echo "make check-layers  who includes whom, against the table of the design"
	@echo "make coverage      lines and branches that the whole suite reaches"
	@echo "make guests        fetch kernels, make the initramfs; GUESTS=test, all or openssl: more"
	@echo "make clean         remove $(BUILD), guests and all"

build:
	@tools/packages.sh run
	@tools/configure $(BUILD)
	@ninja -C $(BUILD)

guests:
	@tools/packages.sh run
	@tools/guests.sh $(GUESTS)

# Only what runs, not the tests: the first prompt shall come soon.
run: guests
	@tools/packages.sh run
	@tools/configure $(BUILD)
	@ninja -C $(BUILD) triode
	@$(BUILD)/triode run $(ARGS)

test:
	@tools/packages.sh run test
	@tools/test

fuzz:
	@tools/packages.sh run test
	@tools/fuzz $(TIME) $(ARGS)

proof:
	@tools/packages.sh run test
	@tools/configure $(BUILD)
	@BUILD=$(BUILD) tools/proof $(ARGS)

tsan:
	@tools/packages.sh run test
	@tools/tsan

bench: guests build
	@tools/packages.sh run test
	@bench/boot $(ARGS)

soak: build
	@tools/guests.sh all
	@case "$(ARGS)" in *openssl*) tools/packages.sh test soak && tools/guests.sh openssl ;; esac
	@tests/boot/soak.py $(BUILD)/triode $(if $(filter file,$(origin TIME)),,--time $(TIME)) $(ARGS)

l1: build
	@tools/packages.sh run test
	@tools/guests.sh
	@tests/vmx-l1/fetch.sh build/guests/l1 $(filter selftests,$(ARGS))
	@tests/vmx-l1/l1.py $(BUILD)/triode $(ARGS)

lint:
	@tools/packages.sh run test lint
	@tools/lint

format:
	@clang-format -i $$(find src tests include guests -name '*.[ch]' 2>/dev/null)

check-layers:
	@tools/check-layers

coverage: guests
	@tools/packages.sh run test
	@tools/coverage

clean:
	rm -rf $(BUILD)
