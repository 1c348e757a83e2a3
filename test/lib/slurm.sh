# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# A Slurm of one node on this machine, apart from any that is installed: its own key, sockets,
# ports and state, all below one directory.
#
#	slurm_up DIR CPUS	starts munged, slurmctld and slurmd; sets SLURM_CONF
#	slurm_down

slurm_up() { # DIR CPUS
	SLURM_DIR=$1
	export SLURM_CONF=$SLURM_DIR/slurm.conf
	PATH=$PATH:/usr/sbin
	mkdir -p "$SLURM_DIR"/{munge,state,spool}
	chmod 711 "$SLURM_DIR/munge"
	ip link set lo up 2>/dev/null || true
	(umask 077 && head -c 128 /dev/urandom >"$SLURM_DIR/munge/key")
	munged --force --key-file="$SLURM_DIR/munge/key" --socket="$SLURM_DIR/munge/socket" \
		--pid-file="$SLURM_DIR/munge/pid" --log-file="$SLURM_DIR/munge/log" \
		--seed-file="$SLURM_DIR/munge/seed" 2>"$SLURM_DIR/munge/err" ||
		slurm_fail "munged: $(cat "$SLURM_DIR/munge/err")"
	cat >"$SLURM_CONF" <<-EOS
		ClusterName=one
		SlurmctldHost=$(hostname)(127.0.0.1)
		SlurmctldPort=16817
		SlurmdPort=16818
		SlurmUser=root
		SlurmdUser=root
		AuthType=auth/munge
		AuthInfo=socket=$SLURM_DIR/munge/socket
		CredType=cred/munge
		StateSaveLocation=$SLURM_DIR/state
		SlurmdSpoolDir=$SLURM_DIR/spool
		SlurmctldPidFile=$SLURM_DIR/ctld.pid
		SlurmdPidFile=$SLURM_DIR/d.pid
		SlurmctldLogFile=$SLURM_DIR/ctld.log
		SlurmdLogFile=$SLURM_DIR/d.log
		ProctrackType=proctrack/linuxproc
		TaskPlugin=task/none
		MpiDefault=none
		SwitchType=switch/none
		JobAcctGatherType=jobacct_gather/none
		AccountingStorageType=accounting_storage/none
		SelectType=select/cons_tres
		SelectTypeParameters=CR_CPU
		SchedulerParameters=batch_sched_delay=0
		ReturnToService=2
		KillWait=2
		NodeName=n1 NodeHostname=$(hostname) NodeAddr=127.0.0.1 CPUs=$2 State=UNKNOWN
		PartitionName=all Nodes=n1 Default=YES MaxTime=INFINITE State=UP
	EOS
	slurmctld -c >"$SLURM_DIR/ctld.out" 2>&1 || slurm_fail "slurmctld: $(cat "$SLURM_DIR/ctld.out")"
	slurmd -N n1 >"$SLURM_DIR/d.out" 2>&1 || slurm_fail "slurmd: $(cat "$SLURM_DIR/d.out")"
	# Waits until the node has told of itself.
	timeout 60 srun --quiet true >"$SLURM_DIR/srun.out" 2>&1 || slurm_fail "srun: $(cat "$SLURM_DIR/srun.out" "$SLURM_DIR"/*.log | tail -n 20)"
}

slurm_fail() { # TEXT
	slurm_down
	echo "FAIL: $*" >&2
	return 1
}

slurm_down() {
	local f pids=''
	for f in "$SLURM_DIR"/{d,ctld,munge/}*pid; do
		[ ! -s "$f" ] || pids="$pids $(cat "$f")"
	done
	# shellcheck disable=SC2086
	[ -z "$pids" ] || { kill $pids && "$LAB_TOOLS/wait-gone" 20 $pids; } || true
}
