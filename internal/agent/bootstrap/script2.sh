#!/bin/sh
# GARO: the start of a machine, script 2. The word in the last line is a JSON
# document in base64url. The order matters: the power-off timer comes before
# anything that can take long or fail, and every failure powers the machine off.
set -eu
umask 077
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL

# power_off REASON: the end of the machine, and of this script.
power_off() {
	trap - EXIT
	echo "garo: powering off: $1" >&2
	shutdown -P now || systemctl poweroff || poweroff -f || :
	exit 1
}

# arm SECONDS: the timer that no one has to be alive for. A timer of systemd is
# exact to the second, and needs no logind, which shutdown may find not started.
arm() {
	if [ -d /run/systemd/system ] && systemd-run --quiet --unit=garo-hard-limit --on-active="$1" \
		--timer-property=AccuracySec=1s systemctl poweroff; then
		return 0
	fi
	shutdown -P "+$((($1 + 59) / 60))"
}

# The whole document, and nothing but it. What the groups match is all that this
# script takes from it: the API's URL, the seconds, and two SHA-256.
pattern='^{"v":1,"api":"\(http[s]\{0,1\}://[][A-Za-z0-9.:/_~-]*\)","runner":"[a-z0-9-]*","index":[0-9]*,"key_id":"[a-z0-9]*","token":"[A-Za-z0-9_-]*","hard_s":\([1-9][0-9]\{0,4\}\),"amd64":"\([0-9a-f]*\)","arm64":"\([0-9a-f]*\)"}$'

# field N: prints group N.
field() {
	printf '%s\n' "$json" | sed -n "s|$pattern|\\$1|p"
}

# is FILE SHA256
is() {
	[ -f "$1" ] && [ "$(sha256sum <"$1" | cut -c1-64)" = "$2" ]
}

# take_proxies: cloud-init starts this script without what a login has, and there
# images name their proxies: for the runner program, for all, and in a profile. What
# comes later counts. Nothing of a value is run.
take_proxies() {
	proxies=$({
		cat /opt/actions-runner/.env /etc/environment || :
		echo
		timeout 5 sh -l -c env </dev/null || :
	} 2>/dev/null | tr -d "\"'" |
		sed -n 's/^[[:blank:]]*\(export \)\{0,1\}\([A-Za-z]\{2,5\}_[A-Za-z]\{5\}\)=\([^#[:cntrl:]]*[^#[:cntrl:][:blank:]]\).*$/\2=\3/p')
	while IFS= read -r proxy; do
		case ${proxy%%=*} in
		http_proxy | https_proxy | all_proxy | no_proxy | HTTPS_PROXY | ALL_PROXY | NO_PROXY) export "${proxy?}" ;;
		HTTP_PROXY) export "http_proxy=${proxy#*=}" ;; # curl reads small letters alone
		esac
	done <<PROXIES
$proxies
PROXIES
}

# fetch URL FILE: eight tries of at most 20 s, which stay well within the time
# that a machine has to boot. An answer that no repetition would change is final.
fetch() {
	tries=0
	while tries=$((tries + 1)) && [ "$tries" -le 8 ]; do
		[ "$tries" -eq 1 ] || sleep 3
		if code=$(curl --silent --show-error --globoff --proto '=http,https' --connect-timeout 5 --max-time 20 \
			--header 'Accept-Encoding: gzip' --output "$2" --write-out '%{http_code}' "$1"); then
			case $code in
			200) return 0 ;;
			408 | 429) ;;
			4*) break ;;
			esac
		fi
	done
	echo "garo: $1: status ${code:-000} after $tries tries" >&2
	return 1
}

# main DOCUMENT is called by the one line that every rendered copy has after this.
# shellcheck disable=SC2317,SC2329
main() {
	trap 'power_off "the start script ended early"' EXIT
	trap 'exit 1' HUP INT TERM

	word=$1
	case $word in
	'' | *[!A-Za-z0-9_-]*) power_off "the document is not base64url" ;;
	esac
	pad=
	case $((${#word} % 4)) in
	2) pad='==' ;;
	3) pad='=' ;;
	esac
	json=$(printf '%s' "$word$pad" | tr '_-' '/+' | base64 -d) || power_off "the document cannot be decoded"
	hard_s=$(field 2)
	[ -n "$hard_s" ] || power_off "the document is not understood"
	arm "$hard_s" || power_off "no power-off timer can be set"

	api=$(field 1)
	machine=$(uname -m)
	case $machine in
	x86_64) arch=amd64 hash=$(field 3) ;;
	aarch64) arch=arm64 hash=$(field 4) ;;
	*) power_off "no agent runs on $machine" ;;
	esac
	[ "${#hash}" -eq 64 ] || power_off "there is no agent for $arch"

	mkdir -p /run/garo /opt/garo
	chmod 0700 /run/garo /opt/garo
	printf '%s' "$word" >/run/garo/document

	if ! is /opt/garo/agent "$hash"; then
		take_proxies
		fetch "${api%/}/agent/linux/$arch/$hash" /opt/garo/agent.gz || power_off "the agent cannot be fetched"
		gzip -dc </opt/garo/agent.gz >/opt/garo/agent.new || power_off "the agent is not a gzip"
		is /opt/garo/agent.new "$hash" || power_off "the agent is not the one that was promised"
		rm -f /opt/garo/agent.gz
		mv -f /opt/garo/agent.new /opt/garo/agent
	fi
	chmod 0700 /opt/garo/agent

	if [ ! -d /run/systemd/system ]; then
		until /opt/garo/agent -document /run/garo/document; do
			sleep 2
		done
		power_off "the agent is done"
	fi
	# The agent is restarted, with whatever it started left alone. It is enabled
	# for the next start of the machine too: there it finds its document gone with
	# /run, and powers off, since a timer does not outlive a reboot. What would
	# confine the agent further (a file system, capabilities, system calls) would
	# confine the jobs with it, which expect a whole machine; their user confines them.
	cat >/etc/systemd/system/garo-agent.service <<'UNIT'
[Unit]
Description=GARO agent
StartLimitIntervalSec=0

[Service]
ExecStart=/opt/garo/agent -document /run/garo/document
Restart=on-failure
RestartSec=2
KillMode=process
OOMScoreAdjust=-900
TasksMax=infinity
UMask=0077
KeyringMode=private
StandardOutput=journal+console
StandardError=inherit

[Install]
WantedBy=multi-user.target
UNIT
	chmod 0644 /etc/systemd/system/garo-agent.service
	systemctl daemon-reload
	systemctl --quiet enable garo-agent.service
	systemctl start garo-agent.service || power_off "the agent does not start"
	trap - EXIT
}
