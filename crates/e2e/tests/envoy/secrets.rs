//! Secrets of rings in mounted files, which change while Envoy serves requests.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;

use serde_json::{Value, json};

use crate::keys::{Minter, options};
use crate::load::{WORKERS, connect, send_in_step};
use crate::support::config::http_filters;
use crate::support::{Envoy, Request, TempDir, artefact, wait_for};

/// How many letters of a secret nothing may show.
const WINDOW: usize = 8;

/// A mounted Secret, as the kubelet writes it: `..data` is a link to a folder, and is replaced as a whole.
struct Mount {
    dir: TempDir,
    versions: usize,
}

// === impl Mount ===

impl Mount {
    fn new(files: &[(&str, &str)]) -> Self {
        let mut mount = Self { dir: TempDir::new("mounted-secrets"), versions: 0 };
        mount.replace(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), mount.path(name)).unwrap();
        }
        mount
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.file(name)
    }

    fn replace(&mut self, files: &[(&str, &str)]) {
        self.versions += 1;
        let folder = format!("..version-{}", self.versions);
        fs::create_dir(self.path(&folder)).unwrap();
        for (name, secret) in files {
            let line_end = if secret.is_empty() { "" } else { "\n" };
            fs::write(self.path(&folder).join(name), format!("{secret}{line_end}")).unwrap();
        }
        symlink(&folder, self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
    }

    /// The filter in front of the module, which puts the files into filter states.
    fn filter(&self) -> Value {
        let state = |ring: &str| {
            let file = self.path(ring).display().to_string();
            let folder = self.path("").display().to_string();
            let folder = folder.trim_end_matches('/');
            json!({
                "object_key": format!("vkey.secret.{ring}"),
                "factory_key": "envoy.string",
                "format_string": {
                    "text_format_source": {"inline_string": format!("%FILE_CONTENT({file}:{folder})%")},
                    "formatters": [{
                        "name": "envoy.formatter.file_content",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.formatter.file_content.v3.FileContent",
                        },
                    }],
                },
            })
        };
        json!({
            "name": "vkey.secrets",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config",
                "on_request_headers": [state("main"), state("next")],
            },
        })
    }
}

fn status(envoy: &Envoy, key: &str) -> u16 {
    envoy.send(&Request::new("GET", "/v1/models").bearer(key)).status
}

#[test]
fn a_mounted_secret_rotates_under_load_and_nothing_shows_it() {
    let (main, next, later) =
        (Minter::new("main", None), Minter::new("next", None), Minter::new("main", None));
    let mut mount = Mount::new(&[("main", &main.secret), ("next", "")]);
    let ring = |name: &str| json!({"name": name, "secret": {"filter_state": format!("vkey.secret.{name}")}});
    let plugin = json!({"keyring": [ring("main"), ring("next")]});
    let filter = mount.filter();
    let options = options("mounted", &main, plugin).on(&artefact("VKEY_TEST_ENVOY"));
    let envoy = Envoy::start(options.concurrency(WORKERS).log_level("info").edit(move |config| {
        http_filters(config).insert(0, filter);
    }));
    let (of_main, of_next, of_later) =
        (main.key("k1", json!({})), next.key("k2", json!({})), later.key("k3", json!({})));
    assert_eq!((status(&envoy, &of_main), status(&envoy, &of_next)), (200, 503));
    let load = |key: &str, count: usize| {
        let request = Request::new("GET", "/v1/models").bearer(key).encode();
        send_in_step(&mut connect(&envoy), std::iter::repeat_n(request, count))
    };
    // Another ring gets its secret while keys of the first are in use: none of them is refused.
    thread::scope(|scope| {
        let statuses = scope.spawn(|| load(&of_main, 4000));
        mount.replace(&[("main", &main.secret), ("next", &next.secret)]);
        wait_for(|| (status(&envoy, &of_next) == 200).then_some(()), || envoy.proxy_log());
        let statuses = statuses.join().unwrap();
        assert!(statuses.iter().all(|status| *status == 200), "no undue refusal");
    });
    // The first ring changes its secret while keys of the other are in use.
    thread::scope(|scope| {
        let statuses = scope.spawn(|| load(&of_next, 4000));
        mount.replace(&[("main", &later.secret), ("next", &next.secret)]);
        wait_for(|| (status(&envoy, &of_later) == 200).then_some(()), || envoy.proxy_log());
        let statuses = statuses.join().unwrap();
        assert!(statuses.iter().all(|status| *status == 200), "no undue refusal");
    });
    // Each worker reads it within a second.
    wait_for(
        || load(&of_main, 4 * WORKERS as usize).iter().all(|status| *status == 401).then_some(()),
        || "keys of the earlier secret are refused".to_owned(),
    );
    mount.replace(&[("main", "weak"), ("next", &next.secret)]);
    wait_for(|| (status(&envoy, &of_later) == 503).then_some(()), || envoy.proxy_log());
    assert_eq!(status(&envoy, &of_next), 200);
    let shown = [
        envoy.proxy_log(),
        envoy.access_log().concat(),
        envoy.admin_get("/config_dump").text(),
        envoy.admin_get("/stats").text(),
    ]
    .concat();
    for secret in [&main.secret, &next.secret, &later.secret] {
        let windows =
            secret.as_bytes().windows(WINDOW).map(|window| str::from_utf8(window).unwrap());
        let found: Vec<&str> = windows.filter(|window| shown.contains(window)).collect();
        assert_eq!(found, [] as [&str; 0]);
    }
    assert!(shown.contains("ring next has another secret"), "{}", envoy.proxy_log());
}
