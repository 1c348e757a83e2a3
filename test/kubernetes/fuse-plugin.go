// SPDX-License-Identifier: Apache-2.0 OR MIT

// A device plugin: offers the node's /dev/fuse as the resource "example.org/fuse", to so many pods.
// It stands for those that clusters have (smarter-device-manager and the like); built with the
// kubelet's own sources.
package main

import (
	"fmt"
	"os"

	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	"k8s.io/kubernetes/pkg/kubelet/cm/devicemanager"
)

const pods = 64

func allocate(r *pluginapi.AllocateRequest, devs map[string]pluginapi.Device) (*pluginapi.AllocateResponse, error) {
	response := &pluginapi.AllocateResponse{}
	for range r.ContainerRequests {
		response.ContainerResponses = append(response.ContainerResponses, &pluginapi.ContainerAllocateResponse{
			Devices: []*pluginapi.DeviceSpec{
				{ContainerPath: "/dev/fuse", HostPath: "/dev/fuse", Permissions: "rw"},
			},
		})
	}
	return response, nil
}

func main() {
	dir := os.Args[1] // of the kubelet
	var devs []*pluginapi.Device
	for i := 0; i < pods; i++ {
		devs = append(devs, &pluginapi.Device{ID: fmt.Sprintf("fuse-%d", i), Health: pluginapi.Healthy})
	}
	stub := devicemanager.NewDevicePluginStub(devs, dir+"fuse.sock", "example.org/fuse", false, false)
	stub.SetAllocFunc(allocate)
	if err := stub.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := stub.Register(dir+"kubelet.sock", "example.org/fuse", ""); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}
