//! The host calls of proxy-wasm ABI 0.2.1 that the module makes. The [`MemoryHost`](vkey::host::MemoryHost)
//! of the current context handles each.

use std::borrow::Cow;

use wasmtime::{Caller, Linker};

use vkey::headers::Headers;
use vkey::host::Level;
use vkey::host::{Body, Host, HostError, MetricKind, SharedData, WriteError};
use vkey::reply::Reply;

use super::guest::{Done, Fault, Guest, Receiver, Span, View, status};
use super::state::State;

/// `proxy_map_type_t`: the headers and trailers of the request, and the headers of its response.
const REQUEST_HEADERS: u32 = 0;
const REQUEST_TRAILERS: u32 = 1;
const RESPONSE_HEADERS: u32 = 2;

/// `proxy_buffer_type_t`: the plugin's configuration.
const PLUGIN_CONFIGURATION: u32 = 7;

/// `proxy_stream_type_t`: the request.
const HTTP_REQUEST: u32 = 0;

/// The space that the nginx module reserves after what it is handed, in bytes.
const ROOM_BEHIND: usize = 64 << 10;

/// The import module of host calls.
const ENV: &str = "env";

/// Adds every host call to the linker.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    link_headers(linker)?;
    link_reads(linker)?;
    link_bodies(linker)?;
    link_shared_data(linker)?;
    link_metrics(linker)?;
    link_actions(linker)
}

// === header maps ===

fn link_headers(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(
        ENV,
        "proxy_get_header_map_pairs",
        |caller: Caller<'_, State>, map: u32, data: u32, len: u32| {
            status(header_pairs(&mut Guest(caller), map, Receiver(data, len)))
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_get_header_map_value",
        |caller: Caller<'_, State>, map: u32, name: u32, name_len: u32, data: u32, len: u32| {
            let receiver = Receiver(data, len);
            status(header(&mut Guest(caller), map, Span(name, name_len), receiver))
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_add_header_map_value",
        |caller: Caller<'_, State>, map: u32, n: u32, n_len: u32, v: u32, v_len: u32| {
            status(add_header(&mut Guest(caller), map, Span(n, n_len), Span(v, v_len)))
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_replace_header_map_value",
        |caller: Caller<'_, State>, map: u32, n: u32, n_len: u32, v: u32, v_len: u32| {
            status(replace_header(&mut Guest(caller), map, Span(n, n_len), Span(v, v_len)))
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_remove_header_map_value",
        |caller: Caller<'_, State>, map: u32, name: u32, name_len: u32| {
            status(remove_header(&mut Guest(caller), map, Span(name, name_len)))
        },
    )?;
    Ok(())
}

fn header_pairs(guest: &mut Guest<'_>, map: u32, receiver: Receiver) -> Done {
    let view = guest.view()?;
    let whole = |pairs: Vec<u8>| {
        let size = pairs.len();
        (pairs, size)
    };
    let pairs = match map {
        REQUEST_HEADERS => view.host.header_pairs(),
        REQUEST_TRAILERS => view.host.trailer_pairs().map(whole),
        _ => None,
    };
    let (pairs, size) = pairs.ok_or(HostError::BAD_ARGUMENT)?;
    if pairs.len().saturating_sub(size) > ROOM_BEHIND {
        view.host.crashed.set(Some("nginx overwrites the memory after the headers"));
    }
    guest.hand_over_as(&pairs, size, receiver)
}

fn header(guest: &mut Guest<'_>, map: u32, name: Span, receiver: Receiver) -> Done {
    let view = guest.view()?;
    let name = view.bytes(name)?;
    let value = match map {
        REQUEST_HEADERS => view.host.request_header(name),
        RESPONSE_HEADERS => view.host.response_header(name),
        _ => return Err(HostError::BAD_ARGUMENT.into()),
    };
    guest.hand_over(&value.ok_or(HostError::NOT_FOUND)?, receiver)
}

fn add_header(guest: &mut Guest<'_>, map: u32, name: Span, value: Span) -> Done {
    let view = guest.view()?;
    is_map(map, REQUEST_HEADERS)?;
    Ok(view.host.add_request_header(view.text(name)?, view.text(value)?)?)
}

fn replace_header(guest: &mut Guest<'_>, map: u32, name: Span, value: Span) -> Done {
    let view = guest.view()?;
    let (name, value) = (view.text(name)?, view.text(value)?);
    Ok(match map {
        REQUEST_HEADERS => view.host.set_request_header(name, value),
        RESPONSE_HEADERS => view.host.set_response_header(name, value),
        _ => Err(HostError::BAD_ARGUMENT),
    }?)
}

fn remove_header(guest: &mut Guest<'_>, map: u32, name: Span) -> Done {
    let view = guest.view()?;
    let name = view.bytes(name)?;
    Ok(match map {
        REQUEST_HEADERS => view.host.remove_request_header(name),
        REQUEST_TRAILERS => view.host.remove_request_trailer(name),
        RESPONSE_HEADERS => {
            let name = std::str::from_utf8(name).map_err(|_| HostError::BAD_ARGUMENT)?;
            view.host.remove_response_header(name)
        }
        _ => Err(HostError::BAD_ARGUMENT),
    }?)
}

fn is_map(map: u32, expected: u32) -> Done {
    if map == expected { Ok(()) } else { Err(HostError::BAD_ARGUMENT.into()) }
}

// === what the host knows ===

fn link_reads(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(
        ENV,
        "proxy_get_current_time_nanoseconds",
        |caller: Caller<'_, State>, time: u32| status(current_time(&mut Guest(caller), time)),
    )?;
    linker.func_wrap(
        ENV,
        "proxy_get_property",
        |caller: Caller<'_, State>, path: u32, path_len: u32, data: u32, len: u32| {
            let receiver = Receiver(data, len);
            status(property(&mut Guest(caller), Span(path, path_len), receiver))
        },
    )?;
    Ok(())
}

fn current_time(guest: &mut Guest<'_>, time: u32) -> Done {
    let mut view = guest.view()?;
    let now_ns = view.host.now_ns().ok_or(HostError::UNIMPLEMENTED)?;
    view.write(time, &now_ns.to_le_bytes())
}

fn property(guest: &mut Guest<'_>, path: Span, receiver: Receiver) -> Done {
    let view = guest.view()?;
    let value = view.host.property_at(view.text(path)?);
    guest.hand_over(&value.ok_or(HostError::NOT_FOUND)?, receiver)
}

// === bodies, and the configuration ===

fn link_bodies(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(
        ENV,
        "proxy_get_buffer_bytes",
        |caller: Caller<'_, State>, buffer: u32, start: u32, max: u32, data: u32, len: u32| {
            let receiver = Receiver(data, len);
            status(buffer_bytes(&mut Guest(caller), buffer, Span(start, max), receiver))
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_set_buffer_bytes",
        |caller: Caller<'_, State>, buffer: u32, start: u32, len: u32, data: u32, size: u32| {
            let (part, bytes) = (Span(start, len), Span(data, size));
            status(set_buffer_bytes(&mut Guest(caller), buffer, part, bytes))
        },
    )?;
    Ok(())
}

fn buffer_bytes(guest: &mut Guest<'_>, buffer: u32, part: Span, receiver: Receiver) -> Done {
    let (start, max) = numbers(part)?;
    let bytes = match body(buffer) {
        Some(body) => guest.view()?.host.body(body, start, max),
        None if buffer == PLUGIN_CONFIGURATION => {
            let rest = guest.0.data().configuration.get(start..);
            rest.map(|rest| rest.get(..max).unwrap_or(rest).to_vec())
        }
        None => None,
    };
    guest.hand_over(&bytes.ok_or(HostError::BAD_ARGUMENT)?, receiver)
}

fn set_buffer_bytes(guest: &mut Guest<'_>, buffer: u32, part: Span, bytes: Span) -> Done {
    let (start, len) = numbers(part)?;
    let view = guest.view()?;
    let body = body(buffer).ok_or(HostError::BAD_ARGUMENT)?;
    Ok(view.host.set_body(body, start, len, view.bytes(bytes)?)?)
}

fn body(buffer: u32) -> Option<Body> {
    [Body::Request, Body::Response].into_iter().find(|body| *body as u32 == buffer)
}

fn numbers(part: Span) -> Result<(usize, usize), HostError> {
    let (start, len) = (usize::try_from(part.0), usize::try_from(part.1));
    start.ok().zip(len.ok()).ok_or(HostError::BAD_ARGUMENT)
}

// === shared data ===

fn link_shared_data(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(
        ENV,
        "proxy_get_shared_data",
        |caller: Caller<'_, State>, name: u32, name_len: u32, data: u32, len: u32, cas: u32| {
            let receiver = Receiver(data, len);
            status(shared_data(&mut Guest(caller), Span(name, name_len), receiver, cas))
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_set_shared_data",
        |caller: Caller<'_, State>, name: u32, name_len: u32, data: u32, len: u32, cas: u32| {
            let (name, record) = (Span(name, name_len), Span(data, len));
            status(set_shared_data(&mut Guest(caller), name, record, cas))
        },
    )?;
    Ok(())
}

fn shared_data(guest: &mut Guest<'_>, name: Span, receiver: Receiver, cas_place: u32) -> Done {
    let view = guest.view()?;
    let (record, cas) = view.host.shared_data(view.text(name)?)?.ok_or(HostError::NOT_FOUND)?;
    guest.hand_over(&record, receiver)?;
    guest.view()?.write(cas_place, &cas.to_le_bytes())
}

fn set_shared_data(guest: &mut Guest<'_>, name: Span, record: Span, cas: u32) -> Done {
    let view = guest.view()?;
    let written = view.host.set_shared_data(view.text(name)?, view.bytes(record)?, cas);
    written.map_err(|error| match error {
        WriteError::CasMismatch => HostError::CAS_MISMATCH.into(),
        WriteError::Host(status) => status.into(),
    })
}

// === metrics ===

fn link_metrics(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(
        ENV,
        "proxy_define_metric",
        |caller: Caller<'_, State>, kind: u32, name: u32, name_len: u32, metric: u32| {
            status(define_metric(&mut Guest(caller), kind, Span(name, name_len), metric))
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_increment_metric",
        |caller: Caller<'_, State>, metric: u32, by: i64| {
            status(increment_metric(&mut Guest(caller), metric, by))
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_record_metric",
        |caller: Caller<'_, State>, metric: u32, value: u64| {
            status(record_metric(&mut Guest(caller), metric, value))
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_get_metric",
        |caller: Caller<'_, State>, metric: u32, place: u32| {
            status(get_metric(&mut Guest(caller), metric, place))
        },
    )?;
    Ok(())
}

fn get_metric(guest: &mut Guest<'_>, metric: u32, place: u32) -> Done {
    let mut view = guest.view()?;
    let value = view.host.metric(metric)?;
    view.write(place, &value.to_le_bytes())
}

fn define_metric(guest: &mut Guest<'_>, kind: u32, name: Span, place: u32) -> Done {
    let mut view = guest.view()?;
    let kind = [MetricKind::Counter, MetricKind::Gauge].into_iter().find(|k| *k as u32 == kind);
    let metric = view.host.define_metric(kind.ok_or(HostError::BAD_ARGUMENT)?, view.text(name)?)?;
    view.write(place, &metric.to_le_bytes())
}

fn increment_metric(guest: &mut Guest<'_>, metric: u32, by: i64) -> Done {
    let by = u32::try_from(by).map_err(|_| HostError::BAD_ARGUMENT)?;
    Ok(guest.view()?.host.increment_metric(metric, by)?)
}

fn record_metric(guest: &mut Guest<'_>, metric: u32, value: u64) -> Done {
    Ok(guest.view()?.host.record_metric(metric, value)?)
}

// === what the host does ===

fn link_actions(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(
        ENV,
        "proxy_log",
        |caller: Caller<'_, State>, level: u32, text: u32, text_len: u32| {
            status(log(&mut Guest(caller), level, Span(text, text_len)))
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_set_property",
        |caller: Caller<'_, State>, path: u32, path_len: u32, value: u32, value_len: u32| {
            let (path, value) = (Span(path, path_len), Span(value, value_len));
            status(set_property(&mut Guest(caller), path, value))
        },
    )?;
    linker.func_wrap(ENV, "proxy_continue_stream", |caller: Caller<'_, State>, stream: u32| {
        status(continue_stream(&mut Guest(caller), stream))
    })?;
    linker.func_wrap(
        ENV,
        "proxy_set_effective_context",
        |caller: Caller<'_, State>, context: u32| {
            status(set_effective_context(&mut Guest(caller), context))
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_set_tick_period_milliseconds",
        |caller: Caller<'_, State>, millis: u32| {
            status(set_tick_period(&mut Guest(caller), millis))
        },
    )?;
    linker.func_wrap(ENV, "proxy_http_call", http_call)?;
    linker.func_wrap(ENV, "proxy_send_local_response", send_local_response)?;
    Ok(())
}

fn log(guest: &mut Guest<'_>, level: u32, text: Span) -> Done {
    let view = guest.view()?;
    let level = Level::from_number(level).ok_or(HostError::BAD_ARGUMENT)?;
    // A log must accept any bytes.
    view.host.log(level, &String::from_utf8_lossy(view.bytes(text)?));
    Ok(())
}

fn set_property(guest: &mut Guest<'_>, path: Span, value: Span) -> Done {
    let view = guest.view()?;
    Ok(view.host.set_filter_state(view.text(path)?, view.text(value)?)?)
}

fn continue_stream(guest: &mut Guest<'_>, stream: u32) -> Done {
    if stream != HTTP_REQUEST {
        return Err(HostError::BAD_ARGUMENT.into());
    }
    Ok(guest.view()?.host.resume_request()?)
}

fn set_effective_context(guest: &mut Guest<'_>, context: u32) -> Done {
    let state = guest.0.data_mut();
    state.hosts.contains_key(&context).then_some(()).ok_or(HostError::BAD_ARGUMENT)?;
    state.current = context;
    Ok(())
}

fn set_tick_period(guest: &mut Guest<'_>, millis: u32) -> Done {
    Ok(guest.view()?.host.set_tick_period(millis)?)
}

/// This host has no clusters.
#[expect(clippy::too_many_arguments, reason = "the ABI's")]
fn http_call(
    _caller: Caller<'_, State>,
    _cluster: u32,
    _cluster_len: u32,
    _headers: u32,
    _headers_len: u32,
    _body: u32,
    _body_len: u32,
    _trailers: u32,
    _trailers_len: u32,
    _timeout_millis: u32,
    _call: u32,
) -> wasmtime::Result<u32> {
    status(Err(HostError::BAD_ARGUMENT.into()))
}

#[expect(clippy::too_many_arguments, reason = "the ABI's")]
fn send_local_response(
    caller: Caller<'_, State>,
    code: u32,
    details: u32,
    details_len: u32,
    body: u32,
    body_len: u32,
    headers: u32,
    headers_len: u32,
    grpc_status: i32,
) -> wasmtime::Result<u32> {
    let mut guest = Guest(caller);
    let parts = [(details, details_len), (body, body_len), (headers, headers_len)];
    status(guest.view().and_then(|view| {
        let parts = parts.map(|(start, len)| Span(start, len));
        let reply = reply(&view, code, parts, grpc_status)?;
        Ok(view.host.send_reply(&reply)?)
    }))
}

fn reply(
    view: &View<'_>,
    code: u32,
    [details, body, headers]: [Span; 3],
    grpc_status: i32,
) -> Result<Reply, Fault> {
    let headers =
        Headers::from_pairs(view.bytes(headers)?.to_vec()).map_err(|_| HostError::BAD_ARGUMENT)?;
    let text = |bytes: &[u8]| Some(Cow::Owned(std::str::from_utf8(bytes).ok()?.to_owned()));
    let headers = headers.iter().map(|(name, value)| text(name).zip(text(value)));
    Ok(Reply {
        status: u16::try_from(code).map_err(|_| HostError::BAD_ARGUMENT)?,
        grpc_status: u8::try_from(grpc_status).ok(),
        headers: headers.collect::<Option<_>>().ok_or(HostError::BAD_ARGUMENT)?,
        body: view.text(body)?.to_owned().into(),
        details: view.text(details)?.to_owned().into(),
    })
}
