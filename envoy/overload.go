package envoy

import (
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	downstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	heapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	heapMonitor       = "envoy.resource_monitors.fixed_heap"
	connectionMonitor = "envoy.resource_monitors.global_downstream_max_connections"

	smallestHeap = 256 << 20 // bytes: an idle proxy with a large configuration needs so much
	unknownHeap  = 2 << 30   // bytes, where the machine does not tell its memory
	// A connection of TLS that does nothing costs some 40 kB (the heap divided by
	// them, on 1.40), and no machine of ours has more descriptors than the last.
	connectionHeap   = 40 << 10
	mostConnections  = 50_000
	fewestConnection = 1_000
)

// DefaultHeap is half of the memory that this process may use: the limit of its
// cgroup (v1 or v2), else the machine's memory. The other half is for what
// shares it, and for what a process has beside its heap.
func DefaultHeap() uint64 {
	limit, err := memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)()
	if system, systemErr := memlimit.FromSystem(); systemErr == nil && (err != nil || system < limit) {
		limit, err = system, nil // a cgroup may promise more than there is
	}
	if err != nil {
		return unknownHeap
	}
	return max(limit/2, smallestHeap)
}

func (b Bootstrap) heap() uint64 {
	if b.HeapBytes > 0 {
		return b.HeapBytes
	}
	return DefaultHeap()
}

// overloadManager gives up, in this order and as little as it can: cached
// memory; the timeouts of who does nothing; the streams that hold most; the
// connections of who is between requests; new connections, which wait in the
// kernel; new requests. The numbers are those of Envoy's guide for edges.
func overloadManager(heap uint64) (*overloadv3.OverloadManager, error) {
	m := &overloadv3.OverloadManager{
		RefreshInterval: durationpb.New(250 * time.Millisecond),
		// Streams are told apart by what they hold from 16 KiB on: with windows of
		// 64 KiB none holds much more.
		BufferFactoryConfig: &overloadv3.BufferFactoryConfig{MinimumAccountToTrackPowerOfTwo: 14},
		Actions: []*overloadv3.OverloadAction{
			{Name: "envoy.overload_actions.shrink_heap", Triggers: []*overloadv3.Trigger{at(0.80)}},
			{Name: "envoy.overload_actions.reduce_timeouts", Triggers: []*overloadv3.Trigger{between(0.80, 0.95)}},
			{Name: "envoy.overload_actions.reset_high_memory_stream", Triggers: []*overloadv3.Trigger{between(0.85, 0.95)}},
			{Name: "envoy.overload_actions.disable_http_keepalive", Triggers: []*overloadv3.Trigger{at(0.92)}},
			{Name: "envoy.overload_actions.stop_accepting_connections", Triggers: []*overloadv3.Trigger{at(0.95)}},
			{Name: "envoy.overload_actions.stop_accepting_requests", Triggers: []*overloadv3.Trigger{at(0.98)}},
		},
	}
	idle := func(timer overloadv3.ScaleTimersOverloadActionConfig_TimerType, least time.Duration) *overloadv3.ScaleTimersOverloadActionConfig_ScaleTimer {
		return &overloadv3.ScaleTimersOverloadActionConfig_ScaleTimer{
			Timer: timer, OverloadAdjust: &overloadv3.ScaleTimersOverloadActionConfig_ScaleTimer_MinTimeout{MinTimeout: durationpb.New(least)},
		}
	}
	var err error
	m.Actions[1].TypedConfig, err = anypb.New(&overloadv3.ScaleTimersOverloadActionConfig{TimerScaleFactors: []*overloadv3.ScaleTimersOverloadActionConfig_ScaleTimer{
		idle(overloadv3.ScaleTimersOverloadActionConfig_HTTP_DOWNSTREAM_CONNECTION_IDLE, 2*time.Second),
		idle(overloadv3.ScaleTimersOverloadActionConfig_HTTP_DOWNSTREAM_STREAM_IDLE, 5*time.Second),
	}})
	if err != nil {
		return nil, err
	}
	connections := min(max(int64(heap/connectionHeap), fewestConnection), mostConnections)
	for _, monitor := range []struct {
		name   string
		config proto.Message
	}{
		{heapMonitor, &heapv3.FixedHeapConfig{MaxHeapSizeBytes: heap}},
		{connectionMonitor, &downstreamv3.DownstreamConnectionsConfig{MaxActiveDownstreamConnections: connections}},
	} {
		typed, err := anypb.New(monitor.config)
		if err != nil {
			return nil, err
		}
		m.ResourceMonitors = append(m.ResourceMonitors, &overloadv3.ResourceMonitor{Name: monitor.name, ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: typed}})
	}
	return m, nil
}

func at(share float64) *overloadv3.Trigger {
	return &overloadv3.Trigger{Name: heapMonitor, TriggerOneof: &overloadv3.Trigger_Threshold{Threshold: &overloadv3.ThresholdTrigger{Value: share}}}
}

func between(from, to float64) *overloadv3.Trigger {
	return &overloadv3.Trigger{Name: heapMonitor, TriggerOneof: &overloadv3.Trigger_Scaled{Scaled: &overloadv3.ScaledTrigger{ScalingThreshold: from, SaturationThreshold: to}}}
}
