//! How the endpoint is made: bound to its port, and with nothing on that would contact anybody unasked.
//!
//! No public name service, no port mapping, no public resolver; a relay only where one was chosen.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use iroh::address_lookup::AddrFilter;
use iroh::dns::DnsResolver;
use iroh::endpoint::{BindError, BindOpts, NetReportConfig, PortmapperConfig, QuicTransportConfig, VarInt, presets};
use iroh::{Endpoint, RelayConfig, RelayMap, RelayMode, RelayUrl, SecretKey, TransportAddr};
use iroh_mdns_address_lookup::MdnsAddressLookup;

use super::pins::Pins;
use super::place::is_local;
use super::{NetworkOptions, RelayChoice};
use crate::transport::TransportError;

/// What links speak.
pub(super) const LINK: &[u8] = b"foldersync/1";
/// What is spoken while pairing.
pub(super) const PAIRING: &[u8] = b"foldersync-pair/1";

/// A connection that says nothing for so long, in milliseconds, is lost.
const IDLE: u32 = 10_000;
/// How often a sign of life is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// A path that says nothing for so long is given up, if there is another.
const PATH_IDLE: Duration = Duration::from_secs(8);

/// How many bytes of one stream may be on their way, or wait to be read.
///
/// The QUIC below (noq 1.4) ends a connection on which more than 2048 pieces of a stream wait, each of which is what
/// came in one packet, gaps or none: this must stay well below 2048 times the least that packets carry. It means 30
/// MB/s at a round trip of 50 ms.
const STREAM_WINDOW: u32 = 3 << 19;
/// How many bytes of all streams of a link may wait to be read.
pub(super) const LINK_WINDOW: u32 = 32 << 20;
/// The same for who has not been let in, or is only pairing.
const STRANGER_WINDOW: u32 = 256 << 10;
/// How many bytes may wait to be sent or acknowledged, on all streams of a link.
const SEND_WINDOW: u64 = 8 << 20;
/// How many streams the other side of a link may have open.
const STREAMS: u32 = 64;

/// How often the local network is asked who is there: every 4 s at most, and less among many.
const DISCOVERY_CADENCE: Duration = Duration::from_secs(4);
/// The name of the service in the local network.
const DISCOVERY_NAME: &str = "foldersync";

/// The QUIC settings for one's own side of a connection that may at first take in so many bytes.
pub(super) fn quic(window: u32) -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .max_idle_timeout(Some(VarInt::from_u32(IDLE).into()))
        .keep_alive_interval(KEEP_ALIVE)
        .default_path_keep_alive_interval(KEEP_ALIVE)
        .default_path_max_idle_timeout(PATH_IDLE)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(window))
        .send_window(SEND_WINDOW)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .datagram_receive_buffer_size(None)
        .build()
}

/// The same for whoever connects, until it is let in.
pub(super) fn quic_for_strangers() -> QuicTransportConfig {
    quic(STRANGER_WINDOW)
}

/// The address of a relay.
pub(super) fn relay_url(url: &str) -> Result<RelayUrl, TransportError> {
    let bad = || TransportError::RelayAddress { url: url.to_owned() };
    let parsed: RelayUrl = url.parse().map_err(|_| bad())?;
    if parsed.scheme() == "https" && parsed.host_str().is_some() { Ok(parsed) } else { Err(bad()) }
}

fn relay_mode(choice: &RelayChoice, pins: &Pins) -> Result<RelayMode, TransportError> {
    Ok(match choice {
        RelayChoice::None => RelayMode::Disabled,
        RelayChoice::Public => RelayMode::Default,
        RelayChoice::Own { url, certificate } => {
            let url = relay_url(url)?;
            if let (Some(certificate), Some(host)) = (certificate, url.host_str()) {
                pins.add(host, *certificate);
            }
            RelayMode::Custom(RelayMap::from(own_relay(url)))
        }
    })
}

/// A relay as it is asked: for one's own address at the same port, over UDP, unless it names none.
fn own_relay(url: RelayUrl) -> RelayConfig {
    let port = url.port();
    let mut relay = RelayConfig::from(url);
    if let (Some(port), Some(quic)) = (port, &mut relay.quic) {
        quic.port = port;
    }
    relay
}

/// Binds the endpoint and starts what the options ask for.
pub(super) async fn bind(options: &NetworkOptions, pins: &Pins) -> Result<Endpoint, TransportError> {
    let mut reports = NetReportConfig::minimal();
    // Without, a relay is not found where UDP is blocked. They go to the chosen relay alone.
    reports.https_probes = options.relay != RelayChoice::None;
    let port = options.port;
    let (v4, v6) = if options.loopback_only {
        (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST)
    } else {
        (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)
    };
    let opening = |reason: &dyn Error| TransportError::Open { reason: chain(reason) };
    let endpoint = Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&options.secret))
        .alpns(vec![LINK.to_vec(), PAIRING.to_vec()])
        .relay_mode(relay_mode(&options.relay, pins)?)
        .ca_tls_config(pins.tls())
        .clear_address_lookup()
        .portmapper_config(PortmapperConfig::Disabled)
        .net_report_config(reports)
        .dns_resolver(DnsResolver::builder().with_system_defaults().disable_fallback().build())
        .transport_config(quic(LINK_WINDOW))
        .clear_ip_transports()
        .bind_addr(SocketAddr::from((v4, port)))
        .map_err(|error| opening(&error))?
        // There are computers without IPv6.
        .bind_addr_with_opts(SocketAddr::from((v6, port)), BindOpts::default().set_is_required(false))
        .map_err(|error| opening(&error))?
        .bind()
        .await
        .map_err(|error| if is_taken(&error) { TransportError::PortInUse { port } } else { opening(&error) })?;
    if options.local_discovery && !options.loopback_only {
        discover(&endpoint);
    }
    Ok(endpoint)
}

/// Announces this device in the local network, and listens for others. Best effort: there are networks without.
fn discover(endpoint: &Endpoint) {
    let local = |address: &TransportAddr| matches!(address, TransportAddr::Ip(address) if is_local(address.ip()));
    let filter = AddrFilter::new(move |all| Cow::Owned(all.iter().filter(|address| local(address)).cloned().collect()));
    let lookup = MdnsAddressLookup::builder()
        .service_name(DISCOVERY_NAME)
        .discovery_cadence(DISCOVERY_CADENCE)
        .addr_filter(filter)
        .build(endpoint.id());
    match (lookup, endpoint.address_lookup()) {
        (Ok(lookup), Ok(services)) => services.add(lookup),
        (Err(error), _) => tracing::warn!("no discovery in the local network: {error:#}"),
        (_, Err(error)) => tracing::warn!("no discovery in the local network: {error:#}"),
    }
}

/// Whether another program has the port.
fn is_taken(error: &BindError) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// An error with its causes, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
