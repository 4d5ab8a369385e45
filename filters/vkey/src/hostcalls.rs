//! The host calls: proxy-wasm ABI 0.2.1, as far as the module uses it.
//!
//! Everything crosses as bytes, and every status is handled. The SDK's host calls panic if a host returns a status that
//! the specification does not list, or a header that is not UTF-8, and hosts do both.

#![allow(unsafe_code)]

mod abi;

use std::alloc::{Layout, alloc};
use std::ptr::{NonNull, null_mut};

use proxy_wasm::types::{BufferType, MapType, StreamType};
use vkey::headers::Headers;
use vkey::host::Level;
#[cfg(not(feature = "nginx"))]
use vkey::host::ServiceCall;
use vkey::host::{Body, Host, HostError, MetricKind, Property, SharedData, WriteError};
use vkey::reply::Reply;

/// The statuses that mean more than failure (`proxy_status_t`).
const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const CAS_MISMATCH: u32 = 8;

/// Room behind what the host hands over. nginx measures a map of more than 100 headers by other headers than
/// those that it writes, so it may write more than it asked room for: as much as the method and the name of the
/// server are longer than four headers.
const ROOM_BEHIND: usize = if cfg!(feature = "nginx") { 2 * MAX_METHOD_BYTES } else { 0 };

/// The longest method with which nginx is asked for the map, so that what it writes has room. How long a request
/// line may be is a setting of nginx (`large_client_header_buffers`).
const MAX_METHOD_BYTES: usize = 32 << 10;

const METHOD: &[u8] = b":method";

#[cfg(not(feature = "nginx"))]
const STATUS: &[u8] = b":status";

/// No gRPC status belongs to a reply: the host chooses.
const NO_GRPC_STATUS: i32 = -1;

/// The host, as the context that it is calling back sees it.
pub(crate) struct ProxyHost;

// === host calls ===

impl SharedData for ProxyHost {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        let mut cas = 0;
        // SAFETY: `name` is valid for its length; the host writes to the three places.
        let record = receive(|data, len| unsafe {
            abi::proxy_get_shared_data(name.as_ptr(), name.len(), data, len, &raw mut cas)
        });
        match record {
            Ok(record) => Ok(Some((record, cas))),
            Err(HostError(NOT_FOUND)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        #[cfg(feature = "faults")]
        let cas = crate::faults::cas(name, cas);
        // SAFETY: both slices are valid for their lengths, and the host copies them.
        let status = unsafe {
            abi::proxy_set_shared_data(
                name.as_ptr(),
                name.len(),
                record.as_ptr(),
                record.len(),
                cas,
            )
        };
        match status {
            OK => Ok(()),
            CAS_MISMATCH => Err(WriteError::CasMismatch),
            status => Err(WriteError::Host(HostError(status))),
        }
    }
}

impl Host for ProxyHost {
    const SERVES_NGINX: bool = cfg!(feature = "nginx");

    fn now_ns(&self) -> Option<u64> {
        let mut now_ns = 0;
        // SAFETY: the host writes one number to the place.
        let status = unsafe { abi::proxy_get_current_time_nanoseconds(&raw mut now_ns) };
        done(status).ok().map(|()| now_ns)
    }

    fn random(&self) -> Option<[u8; 16]> {
        let mut bytes = [0; 16];
        // SAFETY: the host writes that many bytes.
        let errno = unsafe { abi::random_get(bytes.as_mut_ptr(), bytes.len()) };
        (errno == 0).then_some(bytes)
    }

    fn request_headers(&self) -> Option<Headers> {
        pairs(MapType::HttpRequestHeaders)
    }

    fn remove_request_header(&self, name: &[u8]) -> Result<(), HostError> {
        remove(MapType::HttpRequestHeaders, name)
    }

    fn set_request_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        replace(MapType::HttpRequestHeaders, name, value)
    }

    fn request_trailers(&self) -> Option<Headers> {
        pairs(MapType::HttpRequestTrailers)
    }

    fn remove_request_trailer(&self, name: &[u8]) -> Result<(), HostError> {
        remove(MapType::HttpRequestTrailers, name)
    }

    fn add_request_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        // SAFETY: both slices are valid for their lengths, and the host copies them.
        done(unsafe {
            abi::proxy_add_header_map_value(
                MapType::HttpRequestHeaders as u32,
                name.as_ptr(),
                name.len(),
                value.as_ptr(),
                value.len(),
            )
        })
    }

    fn request_header(&self, name: &[u8]) -> Option<Vec<u8>> {
        header(MapType::HttpRequestHeaders, name).ok()
    }

    fn body(&self, body: Body, start: usize, max_len: usize) -> Option<Vec<u8>> {
        // SAFETY: the host writes to the two places.
        let bytes = receive(|data, len| unsafe {
            abi::proxy_get_buffer_bytes(body as u32, start, max_len, data, len)
        });
        bytes.ok()
    }

    fn set_body(
        &self,
        body: Body,
        start: usize,
        len: usize,
        bytes: &[u8],
    ) -> Result<(), HostError> {
        // SAFETY: the slice is valid for its length, and the host copies it.
        done(unsafe {
            abi::proxy_set_buffer_bytes(body as u32, start, len, bytes.as_ptr(), bytes.len())
        })
    }

    fn response_header(&self, name: &[u8]) -> Option<Vec<u8>> {
        header(MapType::HttpResponseHeaders, name).ok()
    }

    fn property(&self, property: Property) -> Option<Vec<u8>> {
        read_property(property.path())
    }

    fn filter_state(&self, path: &str) -> Option<Vec<u8>> {
        read_property(path)
    }

    fn set_filter_state(&self, key: &str, value: &str) -> Result<(), HostError> {
        // SAFETY: both slices are valid for their lengths, and the host copies them.
        done(unsafe {
            abi::proxy_set_property(key.as_ptr(), key.len(), value.as_ptr(), value.len())
        })
    }

    fn send_reply(&self, reply: &Reply) -> Result<(), HostError> {
        #[cfg(feature = "faults")]
        crate::faults::reply()?;
        let headers = reply.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let headers = Headers::serialise(headers);
        // nginx has no use for it, and a build of it for debugging ends its worker (WasmX:
        // `ngx_wasm_assert(grpc_status == -1)`).
        let grpc_status = reply.grpc_status.filter(|_| !cfg!(feature = "nginx"));
        let grpc_status = grpc_status.map_or(NO_GRPC_STATUS, i32::from);
        // SAFETY: the three slices are valid for their lengths, and the host copies them.
        done(unsafe {
            abi::proxy_send_local_response(
                u32::from(reply.status),
                reply.details.as_ptr(),
                reply.details.len(),
                reply.body.as_ptr(),
                reply.body.len(),
                headers.as_ptr(),
                headers.len(),
                grpc_status,
            )
        })
    }

    fn resume_request(&self) -> Result<(), HostError> {
        // SAFETY: a number.
        done(unsafe { abi::proxy_continue_stream(StreamType::HttpRequest as u32) })
    }

    fn enter(&self, context: u32) -> Result<(), HostError> {
        // SAFETY: a number.
        done(unsafe { abi::proxy_set_effective_context(context) })
    }

    #[cfg(not(feature = "nginx"))]
    fn post(&self, call: &ServiceCall<'_>) -> Result<u32, HostError> {
        let mut headers = vec![
            (":method", "POST"),
            (":scheme", "http"),
            (":path", call.path),
            (":authority", call.authority),
            ("content-type", "application/json"),
        ];
        headers.extend(call.authorization.map(|value| ("authorization", value)));
        let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let headers = Headers::serialise(headers);
        let (no_trailers, mut number) = (Headers::serialise(std::iter::empty()), 0);
        // SAFETY: the slices are valid for their lengths, and the host copies them; it writes one number to the place.
        let status = unsafe {
            abi::proxy_http_call(
                call.cluster.as_ptr(),
                call.cluster.len(),
                headers.as_ptr(),
                headers.len(),
                call.body.as_ptr(),
                call.body.len(),
                no_trailers.as_ptr(),
                no_trailers.len(),
                call.timeout_millis,
                &raw mut number,
            )
        };
        done(status).map(|()| number)
    }

    #[cfg(not(feature = "nginx"))]
    fn call_status(&self) -> Option<u16> {
        let status = header(MapType::HttpCallResponseHeaders, STATUS).ok()?;
        str::from_utf8(&status).ok()?.parse().ok()
    }

    fn set_tick_period(&self, millis: u32) -> Result<(), HostError> {
        // SAFETY: a number.
        done(unsafe { abi::proxy_set_tick_period_milliseconds(millis) })
    }

    fn remove_response_header(&self, name: &str) -> Result<(), HostError> {
        remove(MapType::HttpResponseHeaders, name.as_bytes())
    }

    /// Apache Traffic Server replaces nothing that is absent; but it has no shared data, so there
    /// are no limits to report.
    fn set_response_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        replace(MapType::HttpResponseHeaders, name, value)
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, HostError> {
        let mut metric = 0;
        // SAFETY: the name is valid for its length; the host writes one number to the place.
        let status = unsafe {
            abi::proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut metric)
        };
        done(status).map(|()| metric)
    }

    fn increment_metric(&self, metric: u32, by: u32) -> Result<(), HostError> {
        // SAFETY: two numbers.
        done(unsafe { abi::proxy_increment_metric(metric, i64::from(by)) })
    }

    fn record_metric(&self, metric: u32, value: u64) -> Result<(), HostError> {
        // SAFETY: two numbers.
        done(unsafe { abi::proxy_record_metric(metric, value) })
    }

    #[cfg(feature = "nginx")]
    fn metric(&self, _: u32) -> Result<u64, HostError> {
        Err(HostError::UNIMPLEMENTED)
    }

    #[cfg(not(feature = "nginx"))]
    fn metric(&self, metric: u32) -> Result<u64, HostError> {
        let mut value = 0;
        // SAFETY: the host writes one number to the place.
        let status = unsafe { abi::proxy_get_metric(metric, &raw mut value) };
        done(status).map(|()| value)
    }

    fn log(&self, level: Level, text: &str) {
        // A log that cannot be written cannot say so.
        // SAFETY: the text is valid for its length, and the host copies it.
        _ = unsafe { abi::proxy_log(level as u32, text.as_ptr(), text.len()) };
    }
}

fn pairs(map: MapType) -> Option<Headers> {
    if cfg!(feature = "nginx") && matches!(map, MapType::HttpRequestHeaders) {
        let method = header(map, METHOD).ok();
        method.is_none_or(|method| method.len() <= MAX_METHOD_BYTES).then_some(())?;
    }
    // SAFETY: the host writes to the two places.
    let pairs =
        receive(|data, len| unsafe { abi::proxy_get_header_map_pairs(map as u32, data, len) });
    Headers::from_pairs(pairs.ok()?).ok()
}

fn remove(map: MapType, name: &[u8]) -> Result<(), HostError> {
    // SAFETY: the name is valid for its length, and the host does not keep it.
    let status =
        unsafe { abi::proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) };
    // What was not there is not there.
    if status == NOT_FOUND { Ok(()) } else { done(status) }
}

fn replace(map: MapType, name: &str, value: &str) -> Result<(), HostError> {
    // SAFETY: both slices are valid for their lengths, and the host copies them.
    done(unsafe {
        abi::proxy_replace_header_map_value(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

fn header(map: MapType, name: &[u8]) -> Result<Vec<u8>, HostError> {
    // SAFETY: the name is valid for its length; the host writes to the two places.
    receive(|data, len| unsafe {
        abi::proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, len)
    })
}

/// The environment that the host passes to the module.
#[expect(clippy::disallowed_methods, reason = "this is the edge")]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub(crate) fn plugin_configuration(len: usize) -> Vec<u8> {
    // SAFETY: the host writes to the two places.
    let text = receive(|data, text_len| unsafe {
        abi::proxy_get_buffer_bytes(BufferType::PluginConfiguration as u32, 0, len, data, text_len)
    });
    text.unwrap_or_default()
}

fn done(status: u32) -> Result<(), HostError> {
    if status == OK { Ok(()) } else { Err(HostError(status)) }
}

/// The bytes of a property; `None` if it is absent or empty.
fn read_property(path: &str) -> Option<Vec<u8>> {
    // SAFETY: the path is valid for its length; the host writes to the two places.
    let value = receive(|data, len| unsafe {
        abi::proxy_get_property(path.as_ptr(), path.len(), data, len)
    });
    value.ok().filter(|value| !value.is_empty())
}

/// Takes the bytes that a host call hands over.
fn receive(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, HostError> {
    let (mut data, mut len) = (null_mut(), 0);
    done(call(&raw mut data, &raw mut len))?;
    if data.is_null() || len == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the host got these bytes from `vkey_on_memory_allocate`, filled all of them, and gives
    // them up.
    Ok(unsafe { Vec::from_raw_parts(data, len, len.saturating_add(ROOM_BEHIND)) })
}

/// Memory for what the host hands over; [`receive`] takes it back. Null if there is none, where the SDK's traps.
#[unsafe(no_mangle)]
extern "C" fn vkey_on_memory_allocate(size: usize) -> *mut u8 {
    match Layout::array::<u8>(size.saturating_add(if size > 0 { ROOM_BEHIND } else { 0 })) {
        // SAFETY: the layout has a size.
        Ok(layout) if size > 0 => unsafe { alloc(layout) },
        Ok(_) => NonNull::dangling().as_ptr(),
        Err(_) => null_mut(),
    }
}
