//! Pod network and service proxy: veth, routes, addresses, nftables maps.
