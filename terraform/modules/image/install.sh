#!/bin/bash
# Makes an image for GARO's machines of a stock image of Amazon Linux 2023, Ubuntu or
# Debian: GitHub's runner program with what it depends on, GARO's agent, git, Docker and
# build tools. Run it as root, with EC2 Image Builder, Packer or by hand; it may be run
# again. What it is to install is in its environment:
#
#   RUNNER_URL, RUNNER_SHA256   the .tar.gz of the runner program, and its hash; both empty:
#                               the newest release, with the hash in its notes
#   AGENT_URL, AGENT_SHA256     the agent as the API serves it, a gzip, and the hash of
#                               the program in it; both empty: no agent
#   EXTRA_PACKAGES              more packages, by the distribution's names
set -euo pipefail

RUNNER_URL=${RUNNER_URL:-} RUNNER_SHA256=${RUNNER_SHA256:-}
[[ -z $RUNNER_URL || -n $RUNNER_SHA256 ]] || {
	echo 'garo: RUNNER_URL without RUNNER_SHA256: give the hash of the .tar.gz too' >&2
	exit 1
}
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
umask 022

say() { printf 'garo: %s (%ds)\n' "$1" "$SECONDS"; }

# is FILE SHA256
is() { [[ -f $1 && $(sha256sum <"$1" | cut -c1-64) == "$2" ]]; }

# fetch URL FILE: with what a mirror may need of time and of second tries.
fetch() { curl --fail --silent --show-error --location --retry 5 --connect-timeout 10 --max-time 600 --header 'Accept-Encoding: gzip' --output "$2" "$1"; }

install_packages() {
	local id names
	# shellcheck disable=SC1091
	id=$(. /etc/os-release && echo "$ID")
	read -ra names <<<"${EXTRA_PACKAGES:-}"
	case $id in
	ubuntu | debian)
		apt-get -q update
		# The last ones are what the runner program's .NET needs: its own script looks
		# for versions of them that it knows by name.
		apt-get -q -y --no-install-recommends install ca-certificates curl git git-lfs docker.io build-essential jq make mdadm \
			nftables iproute2 procps python3 rsync sudo unzip xz-utils zip zstd e2fsprogs '^libicu[0-9]+$' libssl3 libkrb5-3 zlib1g "${names[@]}"
		;;
	amzn)
		dnf -q -y --setopt=install_weak_deps=False install ca-certificates git git-lfs docker gcc gcc-c++ jq make mdadm \
			nftables iproute procps-ng python3 rsync sudo unzip xz zip zstd e2fsprogs libicu openssl-libs krb5-libs zlib lttng-ust \
			tar gzip shadow-utils "${names[@]}"
		;;
	*)
		echo "garo: what the packages are called in $id is not known" >&2
		exit 1
		;;
	esac
}

install_user() {
	id -u runner >/dev/null 2>&1 || useradd --create-home --shell /bin/bash runner
}

# newest_runner finds the newest release of actions/runner. Its notes have the hash of each
# file, between marks for programs (releaseNote.md in that repository).
newest_runner() {
	local arch version notes=$work/release.json
	case $(uname -m) in
	x86_64) arch=x64 ;;
	aarch64) arch=arm64 ;;
	*)
		echo "garo: actions/runner has no release for $(uname -m)" >&2
		exit 1
		;;
	esac
	curl --fail --silent --show-error --location --retry 5 --connect-timeout 10 --max-time 60 --output "$notes" \
		"${RUNNER_RELEASE:-https://api.github.com/repos/actions/runner/releases/latest}"
	version=$(jq -er '.tag_name | ltrimstr("v")' "$notes")
	RUNNER_URL=$(jq -er --arg name "actions-runner-linux-$arch-$version.tar.gz" '.assets[] | select(.name == $name).browser_download_url' "$notes")
	RUNNER_SHA256=$(jq -er .body "$notes" | sed -n "s/.*<!-- BEGIN SHA linux-$arch -->\([0-9a-f]\{64\}\)<!-- END SHA linux-$arch -->.*/\1/p")
	[[ -n $RUNNER_SHA256 ]] || {
		echo "garo: the notes of actions/runner $version have no hash for linux-$arch" >&2
		exit 1
	}
	say "the newest runner program is $version"
}

install_runner() {
	local dir=/opt/actions-runner mark=/opt/actions-runner/.garo-image
	if [[ -x $dir/run.sh && -f $mark && $(<"$mark") == "$RUNNER_SHA256" ]]; then
		say 'runner program is there'
		return
	fi
	fetch "$RUNNER_URL" "$work/runner.tar.gz"
	is "$work/runner.tar.gz" "$RUNNER_SHA256" || {
		echo "garo: $RUNNER_URL is not what it should be" >&2
		exit 1
	}
	rm -rf "$dir"
	mkdir "$dir"
	tar -xzf "$work/runner.tar.gz" -C "$dir"
	printf %s "$RUNNER_SHA256" >"$mark"
	chown -R runner: "$dir"
}

install_agent() {
	local agent=/opt/garo/agent
	if [[ -z ${AGENT_URL:-} ]]; then
		rm -f "$agent"
		return
	fi
	if ! is "$agent" "${AGENT_SHA256:?the SHA-256 of the agent}"; then
		fetch "$AGENT_URL" "$work/agent.gz"
		gzip -dc <"$work/agent.gz" >"$work/agent"
		is "$work/agent" "$AGENT_SHA256" || {
			echo "garo: $AGENT_URL is not what it should be" >&2
			exit 1
		}
		install -D -m 0700 "$work/agent" "$agent"
	fi
	chmod 0700 /opt/garo
}

# What a machine of an hour does not need and that costs its first minute: updates at
# boot hold the package manager's lock and load the disk, and the image is built each
# week; manual pages are indexed for nobody; Docker starts when it is first used.
disable_at_boot() {
	command -v systemctl >/dev/null || return 0
	local unit
	for unit in apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service man-db.timer dnf-makecache.timer \
		dnf-automatic.timer update-motd.timer motd-news.timer fwupd-refresh.timer; do
		if systemctl list-unit-files "$unit" 2>/dev/null | grep -q "^$unit"; then
			systemctl --quiet disable "$unit"
		fi
	done
	if systemctl list-unit-files docker.socket 2>/dev/null | grep -q '^docker.socket'; then
		systemctl --quiet disable docker.service
		systemctl --quiet enable docker.socket
	fi
}

# Nothing of this machine may be on those that start from the image.
clean_up() {
	rm -rf /opt/actions-runner/_work /opt/actions-runner/_diag /opt/actions-runner/.runner /opt/actions-runner/.credentials*
	rm -f /etc/sudoers.d/garo-job-user /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub /root/.bash_history /root/.ssh/authorized_keys
	if command -v apt-get >/dev/null; then
		apt-get -q clean
		rm -rf /var/lib/apt/lists/*
	else
		dnf -q clean all
	fi
	find /var/log -type f -exec truncate --size 0 {} +
	[[ ! -f /etc/machine-id ]] || : >/etc/machine-id # systemd makes another at the next start
	! command -v cloud-init >/dev/null || cloud-init clean --logs
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install_packages
say 'packages installed'
install_user
[[ -n $RUNNER_URL ]] || newest_runner
install_runner
say 'runner program installed'
install_agent
say 'agent installed'
disable_at_boot
clean_up
say "done, with $(du -sxk / 2>/dev/null | cut -f1) KB on the disk"
