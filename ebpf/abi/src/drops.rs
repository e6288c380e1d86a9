//! Why packets are dropped: a number for ever, a sentence, a counter.

macro_rules! drops {
    ($($number:literal $name:ident $sentence:literal),+ $(,)?) => {
        /// Why a packet was dropped; the number is the index of its counter and never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Drop { $( #[doc = $sentence] $name = $number ),+ }

        /// Number, name and sentence of every [`Drop`].
        pub const DROPS: &[(u32, &str, &str)] = &[$( ($number, stringify!($name), $sentence) ),+];
    };
}

drops! {
    1 Truncated "the packet ends inside a header",
    2 NotIp "a pod sent a frame that is neither IP nor ARP",
    3 Spoofed "a pod sent a packet with a source address that is not its own",
    4 UnknownLink "a packet came from a link that belongs to no pod",
    5 Fragment "a fragment without ports needed translation",
    6 NoBackend "the service has no backend",
    7 NoFlow "a packet in the middle of a TCP connection belongs to no known flow",
    8 BackendGone "the backend of the connection no longer exists",
    9 NoPort "no source port was free for this destination",
    10 FlowTable "the flow could not be remembered",
    11 Rewrite "a header could not be rewritten",
    12 ExtensionHeaders "more IPv6 extension headers than are followed",
    13 UnknownProtocol "a packet of a protocol without ports needed translation",
    14 NoLocalBackend "the service has backends, but none on this node, where its policy wants one",
    15 SourceRange "the client is in none of the service's source ranges",
    16 Unallocated "no service has this address of the service range",
    17 UnknownPort "the service does not have this port",
    18 FragmentOrder "a fragment came before the first of its datagram",
    19 TooBig "the packet does not fit the tunnel to its backend, or its route",
    20 Converting "a packet of an unknown connection, while flows are converted",
    21 PolicyEgress "no policy lets the pod talk to this destination",
    22 PolicyIngress "no policy lets this source talk to the pod",
    23 SpoofedMac "a pod sent a frame with a hardware address that is not its own",
    24 Bandwidth "the pod's limit of bandwidth is used up",
    25 SctpFragment "the ports of a fragmented SCTP packet would have to change, whose checksum covers all fragments",
}

/// Size of the counter map: room for reasons to come.
pub const DROP_SLOTS: u32 = 64;
