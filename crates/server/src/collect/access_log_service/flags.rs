//! Envoy's flags of a response: a message of booleans in an entry, short codes in an audit line.

use prost::Message;

/// What separates the codes in a line.
const SEPARATOR: &str = ",";

macro_rules! response_flags {
    ($($tag:literal $name:ident $code:literal,)*) => {
        /// `envoy.data.accesslog.v3.ResponseFlags`
        #[derive(Clone, PartialEq, Message)]
        pub(super) struct ResponseFlags {
            $(#[prost(bool, tag = $tag)]
            pub(super) $name: bool,)*
            #[prost(message, optional, tag = "13")]
            pub(super) unauthorized_details: Option<Unauthorized>,
        }

        impl ResponseFlags {
            /// The codes of the flags that a field has for itself.
            fn own_codes(&self) -> impl Iterator<Item = &'static str> {
                [$((self.$name, $code)),*].into_iter().filter_map(|(is_set, code)| is_set.then_some(code))
            }
        }
    };
}

// The fields of envoy/data/accesslog/v3/accesslog.proto, with the short codes of the documentation of %RESPONSE_FLAGS%.
// No field has `DO` (`drop_overload`).
response_flags! {
    "1" failed_local_healthcheck "LH",
    "2" no_healthy_upstream "UH",
    "3" upstream_request_timeout "UT",
    "4" local_reset "LR",
    "5" upstream_remote_reset "UR",
    "6" upstream_connection_failure "UF",
    "7" upstream_connection_termination "UC",
    "8" upstream_overflow "UO",
    "9" no_route_found "NR",
    "10" delay_injected "DI",
    "11" fault_injected "FI",
    "12" rate_limited "RL",
    "14" rate_limit_service_error "RLSE",
    "15" downstream_connection_termination "DC",
    "16" upstream_retry_limit_exceeded "URX",
    "17" stream_idle_timeout "SI",
    "18" invalid_envoy_request_headers "IH",
    "19" downstream_protocol_error "DPE",
    "20" upstream_max_stream_duration_reached "UMSDR",
    "21" response_from_cache_filter "RFCF",
    "22" no_filter_config_found "NFCF",
    "23" duration_timeout "DT",
    "24" upstream_protocol_error "UPE",
    "25" no_cluster_found "NC",
    "26" overload_manager "OM",
    "27" dns_resolution_failure "DF",
    "28" downstream_remote_reset "DR",
}

/// `ResponseFlags.Unauthorized`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Unauthorized {
    /// 1: an external service refused the request.
    #[prost(int32, tag = "1")]
    pub(super) reason: i32,
}

// === impl ResponseFlags ===

impl ResponseFlags {
    /// The short codes, in the order of the fields; `None` without a flag.
    pub(super) fn codes(&self) -> Option<String> {
        let is_refused = self.unauthorized_details.as_ref().is_some_and(|why| why.reason == 1);
        let codes: Vec<_> = self.own_codes().chain(is_refused.then_some("UAEX")).collect();
        (!codes.is_empty()).then(|| codes.join(SEPARATOR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message in which one field is true, written by hand.
    fn only(field: u8) -> ResponseFlags {
        let key = u16::from(field) << 3;
        let key = if key < 0x80 { vec![field << 3] } else { vec![(field << 3) | 0x80, field >> 4] };
        ResponseFlags::decode([key, vec![1]].concat().as_slice()).unwrap()
    }

    /// The codes by the numbers of the fields.
    #[test]
    fn each_flag_has_its_code() {
        const CODES: [&str; 29] = [
            "", "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "", "RLSE",
            "DC", "URX", "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF",
            "DR",
        ];
        for (field, code) in (0..).zip(CODES).filter(|(_, code)| !code.is_empty()) {
            assert_eq!(only(field).codes().as_deref(), Some(code), "field {field}");
        }
        assert_eq!(only(29).codes(), None, "a flag of a later Envoy");
    }

    #[test]
    fn several_flags_are_separated() {
        let unauthorized_details = Some(Unauthorized { reason: 1 });
        let flags = ResponseFlags {
            upstream_connection_failure: true,
            upstream_retry_limit_exceeded: true,
            unauthorized_details,
            ..ResponseFlags::default()
        };
        assert_eq!(flags.codes().as_deref(), Some("UF,URX,UAEX"));
        let unknown = Some(Unauthorized { reason: 0 });
        let flags = ResponseFlags { unauthorized_details: unknown, ..ResponseFlags::default() };
        assert_eq!(flags.codes(), None);
    }
}
