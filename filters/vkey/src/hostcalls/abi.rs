//! The imports: proxy-wasm ABI 0.2.1, and of WASI preview 1 what the standard library does not offer.

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    pub(super) fn proxy_add_header_map_value(
        map: u32,
        name: *const u8,
        name_len: usize,
        value: *const u8,
        value_len: usize,
    ) -> u32;
    pub(super) fn proxy_continue_stream(stream: u32) -> u32;
    pub(super) fn proxy_define_metric(
        kind: u32,
        name: *const u8,
        name_len: usize,
        metric: *mut u32,
    ) -> u32;
    pub(super) fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        max_len: usize,
        data: *mut *mut u8,
        len: *mut usize,
    ) -> u32;
    pub(super) fn proxy_get_current_time_nanoseconds(time_ns: *mut u64) -> u32;
    pub(super) fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, len: *mut usize) -> u32;
    pub(super) fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_len: usize,
        data: *mut *mut u8,
        len: *mut usize,
    ) -> u32;
    #[cfg(not(feature = "nginx"))]
    pub(super) fn proxy_get_metric(metric: u32, value: *mut u64) -> u32;
    pub(super) fn proxy_get_property(
        path: *const u8,
        path_len: usize,
        data: *mut *mut u8,
        len: *mut usize,
    ) -> u32;
    pub(super) fn proxy_get_shared_data(
        name: *const u8,
        name_len: usize,
        data: *mut *mut u8,
        len: *mut usize,
        cas: *mut u32,
    ) -> u32;
    #[cfg(not(feature = "nginx"))]
    pub(super) fn proxy_http_call(
        cluster: *const u8,
        cluster_len: usize,
        headers: *const u8,
        headers_len: usize,
        body: *const u8,
        body_len: usize,
        trailers: *const u8,
        trailers_len: usize,
        timeout_millis: u32,
        call: *mut u32,
    ) -> u32;
    pub(super) fn proxy_increment_metric(metric: u32, by: i64) -> u32;
    pub(super) fn proxy_log(level: u32, text: *const u8, text_len: usize) -> u32;
    pub(super) fn proxy_record_metric(metric: u32, value: u64) -> u32;
    pub(super) fn proxy_remove_header_map_value(map: u32, name: *const u8, name_len: usize) -> u32;
    pub(super) fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_len: usize,
        value: *const u8,
        value_len: usize,
    ) -> u32;
    pub(super) fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_len: usize,
        body: *const u8,
        body_len: usize,
        headers: *const u8,
        headers_len: usize,
        grpc_status: i32,
    ) -> u32;
    pub(super) fn proxy_set_buffer_bytes(
        buffer: u32,
        start: usize,
        len: usize,
        data: *const u8,
        data_len: usize,
    ) -> u32;
    pub(super) fn proxy_set_effective_context(id: u32) -> u32;
    pub(super) fn proxy_set_property(
        path: *const u8,
        path_len: usize,
        value: *const u8,
        value_len: usize,
    ) -> u32;
    pub(super) fn proxy_set_shared_data(
        name: *const u8,
        name_len: usize,
        data: *const u8,
        data_len: usize,
        cas: u32,
    ) -> u32;
    pub(super) fn proxy_set_tick_period_milliseconds(millis: u32) -> u32;
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    /// Returns an `errno`, 0 for success.
    pub(super) fn random_get(bytes: *mut u8, len: usize) -> u32;
}
