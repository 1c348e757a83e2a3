# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
#
# A Kubernetes node in namespaces of its own (check has made them): what it starts and mounts ends with them.
# $W is a directory of the test, $CACHE what fetch has made.

export PATH=$CACHE/bin:$CACHE/debs/usr/bin:$PATH KUBECONFIG=$W/kubeconfig
export LIMIT=${LIMIT:-180} # seconds; only ever reached by a failing test
NODE=10.99.0.1

fail() {
	echo "FAIL: $*" >&2
	exit 1
}

# Runs the command until it has printed such a line; it may go on without end.
wait_said() { # PATTERN COMMAND...
	local line='' pid pattern=$1 said=1
	shift
	exec 9< <(exec "$@" 2>/dev/null)
	pid=$!
	while [ $said = 1 ] && read -r -t "$LIMIT" line <&9; do
		[[ ! $line =~ $pattern ]] || said=0
	done
	kill "$pid" 2>/dev/null || true
	exec 9<&-
	return $said
}

# FILE may not be there yet.
wait_line() { # FILE PATTERN
	wait_said "$2" tail -n +1 -F "$1" || fail "$1 never says $2: $(tail -n 20 "$1")"
}

run() { # NAME COMMAND...
	local name=$1
	shift
	"$@" >"$W/log/$name" 2>&1 </dev/null &
}

network() {
	ip link set lo up
	ip link add node0 type veth peer name node1
	ip addr add $NODE/24 dev node0
	ip link set node0 up
	ip link set node1 up
	ip route add default via $NODE dev node0
	echo 1 >/proc/sys/net/ipv4/ip_forward
}

# What these programs have at fixed places is theirs alone.
places() {
	mount -t tmpfs -o mode=755 tmpfs /run
	mount -t tmpfs -o mode=755 tmpfs /var/lib
	mount -t tmpfs -o mode=755 tmpfs /var/log
	mkdir -p /var/lib/kubelet "$W"/{log,certs,cni,containerd,home,images}
}

configuration() {
	openssl genrsa -out "$W/key" 2048 2>/dev/null
	echo 'secret,admin,admin,"system:masters"' >"$W/tokens"
	cat >"$KUBECONFIG" <<-EOS
		apiVersion: v1
		kind: Config
		clusters: [{name: c, cluster: {server: "https://$NODE:6443", insecure-skip-tls-verify: true}}]
		users: [{name: u, user: {token: secret}}]
		contexts: [{name: x, context: {cluster: c, user: u}}]
		current-context: x
	EOS
	cat >"$W/containerd.toml" <<-EOS
		version = 2
		root = "$W/containerd"
		state = "/run/containerd"
		[grpc]
		address = "/run/containerd/containerd.sock"
		[plugins."io.containerd.grpc.v1.cri"]
		sandbox_image = "test.example.org/pause:1"
		restrict_oom_score_adj = true
		[plugins."io.containerd.grpc.v1.cri".containerd]
		snapshotter = "native"
		[plugins."io.containerd.grpc.v1.cri".cni]
		bin_dir = "$CACHE/debs/usr/lib/cni"
		conf_dir = "$W/cni"
	EOS
	cat >"$W/cni/pods.conflist" <<-EOS
		{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp",
		 "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.98.0.0/24"}]], "dataDir": "/run/cni"}}]}
	EOS
	cat >"$W/kubelet.yaml" <<-EOS
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
		authorization: {mode: AlwaysAllow}
		cgroupDriver: cgroupfs
		cgroupsPerQOS: false
		cgroupRoot: /$CGROUP
		enforceNodeAllocatable: []
		failSwapOn: false
		makeIPTablesUtilChains: false
		resolvConf: ""
		evictionHard: {memory.available: 1Mi, nodefs.available: 1Mi, imagefs.available: 1Mi}
	EOS
}

control_plane() {
	run etcd etcd --data-dir="$W/etcd" --listen-client-urls=http://127.0.0.1:2379 \
		--advertise-client-urls=http://127.0.0.1:2379 --listen-peer-urls=http://127.0.0.1:2380
	wait_line "$W/log/etcd" 'ready to serve client requests'
	run apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --cert-dir="$W/certs" \
		--advertise-address=$NODE --bind-address=$NODE --secure-port=6443 --token-auth-file="$W/tokens" \
		--authorization-mode=AlwaysAllow --disable-admission-plugins=ServiceAccount --allow-privileged=true \
		--service-account-issuer=https://test.example.org --service-account-key-file="$W/key" \
		--service-account-signing-key-file="$W/key" --service-cluster-ip-range=10.96.0.0/16 \
		--kubelet-preferred-address-types=InternalIP
	wait_line "$W/log/apiserver" 'Serving securely on'
	run controllers kube-controller-manager --kubeconfig="$KUBECONFIG" --leader-elect=false \
		--use-service-account-credentials=false --cert-dir="$W/certs"
	run scheduler kube-scheduler --kubeconfig="$KUBECONFIG" --leader-elect=false --cert-dir="$W/certs"
}

kubelet_and_containers() {
	run containerd containerd --config "$W/containerd.toml"
	wait_line "$W/log/containerd" 'containerd successfully booted'
	for image in "$W"/images/*.tar; do
		ctr -a /run/containerd/containerd.sock -n k8s.io images import "$image" >/dev/null
	done
	run kubelet kubelet --config="$W/kubelet.yaml" --kubeconfig="$KUBECONFIG" --container-runtime=remote \
		--container-runtime-endpoint=unix:///run/containerd/containerd.sock --node-ip=$NODE \
		--hostname-override=node --cert-dir="$W/certs"
	wait_said ' Ready ' kubectl get nodes --watch --no-headers ||
		fail "the node does not become ready: $(tail -n 5 "$W/log/kubelet")"
}

# An image of one layer, as `docker save` writes them.
image() { # NAME DIRECTORY
	local dir=$W/images/$1 sum
	mkdir "$dir"
	tar -C "$2" --numeric-owner --owner=0 --group=0 -cf "$dir/layer.tar" .
	sum=$(sha256sum <"$dir/layer.tar" | cut -d' ' -f1)
	cat >"$dir/config.json" <<-EOS
		{"architecture": "amd64", "os": "linux",
		 "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/root"], "Cmd": ["/pause"]},
		 "rootfs": {"type": "layers", "diff_ids": ["sha256:$sum"]}}
	EOS
	echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"test.example.org/$1:1\"], \"Layers\": [\"layer.tar\"]}]" \
		>"$dir/manifest.json"
	tar -C "$dir" -cf "$dir.tar" manifest.json config.json layer.tar
	rm -r "$dir"
}

# What compiles C here: the files of these packages.  Asked before /var/lib is the node's.
compiler_files() {
	dpkg-query -f '${db:Status-Abbrev}${Package}:${Architecture}\n' -W 'binutils*' cpp 'cpp-*' dash gcc 'gcc-[0-9]*' 'g++-[0-9]*' 'libgcc-*' libc6 \
		libc6-dev linux-libc-dev 'libisl*' 'libmpc*' 'libmpfr*' libgmp10 zlib1g libzstd1 libbinutils 'libctf*' \
		'libjansson4' libstdc++6 libcc1-0 2>/dev/null | sed -n 's/^ii *//p' | xargs dpkg -L |
		grep -E '^/(usr|lib|lib64|bin)/' | grep -v '^/usr/share' | sort -u | while read -r file; do
		[ -d "$file" ] || echo "$(realpath "$(dirname "$file")")/$(basename "$file")"
	done | sort -u
}

# One that has this machine's compiler, and one whose cc1 is not the same to the byte.
compiler_images() {
	local root=$W/compilers-root dir
	for dir in bin lib lib64 sbin; do
		mkdir -p "$root/usr/$dir"
		ln -s usr/$dir "$root/$dir"
	done
	tar -c -P -T "$W/compiler-files" | tar -x -C "$root" 2>/dev/null
	cp -a "$W"/worker-root/{etc,root,tmp,var,proc,sys,dev,run} "$root/"
	cp -a "$W"/worker-root/usr/local "$root/usr/"
	cp -an "$W"/worker-root/bin/* "$root/usr/bin/"
	image compilers "$root"
	printf x >>"$root$(gcc -print-prog-name=cc1)"
	image other "$root"
	rm -r "$root"
}

# Nothing but concc-worker and a shell: the compilers are the client's.
images() {
	local root=$W/worker-root
	mkdir -p "$W/pause-root" "$root"/{bin,usr/local/bin,etc,root,tmp,var/tmp,proc,sys,dev,run}
	echo 'extern int pause(void); int main(void) { for (;;) pause(); }' |
		gcc -x c -static -O1 -o "$W/pause-root/pause" -
	image pause "$W/pause-root"
	cp "$BIN/concc-worker" "$root/usr/local/bin/"
	cp "$CACHE/debs/bin/busybox" "$root/bin/"
	for name in sh sleep cat env; do
		ln -s busybox "$root/bin/$name"
	done
	echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
	chmod 1777 "$root/tmp" "$root/var/tmp"
	image concc-worker "$root"
	compiler_images
}

node_up() {
	network
	compiler_files >"$W/compiler-files"
	places
	configuration
	images
	control_plane
	kubelet_and_containers
}
