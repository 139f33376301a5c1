# Build, test, install and package uplinkd. `make help` lists what there is.

# Where things go. Everything but the programs has a fixed place below /usr and /etc: systemd, D-Bus, polkit and
# the network managers look nowhere else, so PREFIX=/usr is the one that gives a working system.
PREFIX  ?= /usr
BINDIR  ?= $(PREFIX)/bin
SBINDIR ?= $(PREFIX)/sbin
ZSHDIR  ?= $(PREFIX)/share/zsh/site-functions
DESTDIR ?=

CARGO   ?= cargo
INSTALL ?= install
SUITE   ?=
# PROFILE=lab builds in seconds what only the lab should run.
PROFILE ?= release

here    := $(CURDIR)
out     := $(here)/build
target  := $(abspath $(or $(CARGO_TARGET_DIR),target))
field    = $(shell sed -n 's/^$(1) = "\(.*\)"/\1/p' Cargo.toml)
version := $(call field,version)
msrv    := $(call field,rust-version)

# Crates below VENDOR, where `make vendor` puts them, are used instead of the network.
export VENDOR ?= $(wildcard $(here)/vendor)
vendored := $(if $(VENDOR),--offline --config 'source.crates-io.replace-with="vendor"' \
    --config 'source.vendor.directory="$(VENDOR)"')
comma    := ,
sudo     := $(if $(filter-out 0,$(shell id -u)),sudo -E)
as_root  := $(if $(sudo),--config 'target."cfg(unix)".runner=["sudo"$(comma)"-E"]')
# Which root to boot and which package to install in it, where SUITE says.
in_lab    = $(if $(SUITE),UPLINKD_LAB_SUITE='$(SUITE)' UPLINKD_DEB="$$(ls -t '$(out)/$(SUITE)'/uplinkd_*.deb | head -n 1)")
# The lab's tests mostly wait: for links, leases and time limits.
threads   = $(shell cores=$$(nproc); echo $$((cores > 4 ? cores : 4)))
# For builds in a copy: the same compiler and the same compiled crates, also where HOME is another.
shared    = CARGO_HOME="$${CARGO_HOME:-$$HOME/.cargo}" RUSTUP_HOME="$${RUSTUP_HOME:-$$HOME/.rustup}" \
    CARGO_TARGET_DIR="$(target)" PROFILE="$(PROFILE)"
# A fresh copy of the source at $(1), so that nothing is written beside the checkout.
define copy
rm -rf '$(1)' && mkdir -p '$(1)'
tar --exclude=./.git --exclude=./build --exclude=./target --exclude=./vendor -cf - . | tar -xf - -C '$(1)'
endef

.PHONY: all help build check test lab-root vm-test figures demo lab-shell install deb rpm vendor deps toolchain clean

all: build

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 12

build: toolchain ## Build the programs (the default)
	$(CARGO) build --profile $(PROFILE) --locked --bins $(vendored)

check: ## Formatting, lints, and that the pure core stays pure
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets $(vendored) -- -D warnings
	$(CARGO) test --locked --test purity $(vendored)

test: deps lab-root ## Install what the tests need and run them all, the lab included, as root
	$(MAKE) deb
	RUST_TEST_THREADS="$${RUST_TEST_THREADS:-$(threads)}" $(CARGO) test --locked $(vendored) $(as_root)

lab-root: deps ## Make the Debian root that the lab boots (SUITE=trixie)
	$(sudo) tests/lab/mkroot $(or $(SUITE),trixie)

vm-test: lab-root ## Boot Debian's own kernel in a virtual machine and try PPPoE, WireGuard and more there (PATTERN='wg_*')
	@tests/vm/deps
	$(MAKE) deb
	$(in_lab) $(sudo) tests/vm/run '$(or $(SUITE),trixie)' '$(or $(PATTERN),*)'

figures: lab-root ## Print times, memory and processor use, measured in the lab (two minutes)
	$(CARGO) bench --locked $(vendored) --bench plan
	$(CARGO) test --locked $(vendored) $(as_root) --test policies figures -- --ignored --nocapture
	$(CARGO) test --locked $(vendored) $(as_root) --test lab figures -- --ignored --nocapture

demo: lab-root ## Show it all in the lab: two ISPs, a client, a pulled cable
	$(MAKE) deb
	$(in_lab) $(CARGO) run -q --locked --example demo $(vendored) $(as_root)

lab-shell: lab-root ## A shell in the lab's router, with the package installed
	$(MAKE) deb
	$(in_lab) $(CARGO) run -q --locked --example lab-shell $(vendored) $(as_root)

install: ## Install what `make build` built below DESTDIR (the only list of installed files)
	@test -x '$(target)/$(PROFILE)/uplinkd' && test -x '$(target)/$(PROFILE)/uplinkctl' || \
	    { echo 'run "make build" first' >&2; exit 1; }
	$(INSTALL) -D -m 755 '$(target)/$(PROFILE)/uplinkd' '$(DESTDIR)$(SBINDIR)/uplinkd'
	$(INSTALL) -D -m 755 '$(target)/$(PROFILE)/uplinkctl' '$(DESTDIR)$(BINDIR)/uplinkctl'
	cd dist && find . -type f -exec sh -ec \
	    'for file; do $(INSTALL) -D -m 644 "$$file" "$(DESTDIR)/$$file"; done' install {} +
	cd dist && find . -type l -exec sh -ec \
	    'for file; do $(INSTALL) -d -m 755 "$(DESTDIR)/$${file%/*}"; cp -Pf "$$file" "$(DESTDIR)/$$file"; done' install {} +
	sed -i -e 's|=/usr/sbin/|=$(SBINDIR)/|' -e 's|=/usr/bin/|=$(BINDIR)/|' \
	    '$(DESTDIR)/usr/lib/systemd/system/uplinkd.service'
	$(INSTALL) -d -m 755 '$(DESTDIR)/etc/uplinkd/conf.d' '$(DESTDIR)/etc/uplinkd/nft.d'
	for hook in look hook; do \
	    $(INSTALL) -D -m 755 "dispatcher.d/$$hook" "$(DESTDIR)/usr/libexec/uplinkd/$$hook" || exit 1; done
	$(INSTALL) -D -m 644 dispatcher.d/dhcp '$(DESTDIR)/usr/share/uplinkd/dhcp'
	$(INSTALL) -D -m 755 dispatcher.d/90-uplinkd '$(DESTDIR)/usr/lib/NetworkManager/dispatcher.d/90-uplinkd'
	$(INSTALL) -d -m 755 '$(DESTDIR)/usr/lib/NetworkManager/dispatcher.d/pre-up.d'
	cp -Pf dispatcher.d/pre-up.d/90-uplinkd '$(DESTDIR)/usr/lib/NetworkManager/dispatcher.d/pre-up.d/'
	for page in man/*.[1-8]; do \
	    $(INSTALL) -D -m 644 "$$page" "$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}" || exit 1; done
	for page in $(wildcard README.md CHANGELOG.md); do \
	    $(INSTALL) -D -m 644 "$$page" "$(DESTDIR)$(PREFIX)/share/doc/uplinkd/$$page" || exit 1; done
	complete() { \
	    $(INSTALL) -D -m 644 /dev/null "$$2" && '$(target)/$(PROFILE)/uplinkctl' completions "$$1" >"$$2" && \
	    test -s "$$2" || { echo "no completions for $$1" >&2; exit 1; }; }; \
	complete bash '$(DESTDIR)$(PREFIX)/share/bash-completion/completions/uplinkctl'; \
	complete zsh '$(DESTDIR)$(ZSHDIR)/_uplinkctl'; \
	complete fish '$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/uplinkctl.fish'

ifneq ($(SUITE),)
deb: ## Debian package for this machine into build/; SUITE=trixie: in a clean root of it, into build/trixie/
	$(call copy,$(out)/$(SUITE)/uplinkd-$(version))
	$(sudo) debian/build-in '$(SUITE)' '$(out)/$(SUITE)/uplinkd-$(version)'
	rm -rf '$(out)/$(SUITE)/uplinkd-$(version)'
	@ls '$(out)/$(SUITE)'/*.deb
else
deb: toolchain
	$(call copy,$(out)/deb/uplinkd-$(version))
	cd '$(out)/deb/uplinkd-$(version)' && $(shared) dpkg-buildpackage -b -us -uc -d
	mv -f '$(out)'/deb/*.deb '$(out)/'
	rm -rf '$(out)/deb'
	@ls '$(out)'/*.deb
endif

rpm: toolchain ## RPM package for this machine into build/
	$(call copy,$(out)/rpm/uplinkd-$(version))
	cd '$(out)/rpm/uplinkd-$(version)' && $(shared) rpmbuild -bb --build-in-place --nodeps \
	    --define '_topdir $(out)/rpm' rpm/uplinkd.spec
	mv -f '$(out)'/rpm/RPMS/*/*.rpm '$(out)/'
	rm -rf '$(out)/rpm'
	@ls '$(out)'/*.rpm

vendor: ## Put the sources of all crates into vendor/, for builds without a network
	$(CARGO) vendor --locked --versioned-dirs vendor >/dev/null

deps: ## Install what building and testing need, if something is missing
	@tests/install-deps

toolchain:
	@have=$$($(CARGO) --version | cut -d' ' -f2) && printf '%s\n' '$(msrv)' "$$have" | sort -CV || \
	    { echo "cargo $(msrv) or newer is needed; this is $${have:-none}" >&2; exit 1; }

clean: ## Remove what was built
	rm -rf build vendor
	$(CARGO) clean
