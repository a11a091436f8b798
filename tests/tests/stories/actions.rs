//! What a VirtualService's rule can do with a request, over the wire.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use weft_tests::{eventually, story};

use crate::deploy::{self, got_header, hits, route};

#[test]
fn redirect() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let cases = [
            ("{uri: /new}", "/old?q=1", 301, "http://echo/new?q=1"),
            ("{uri: /new, redirectCode: 308}", "/old", 308, "http://echo/new"),
            ("{authority: other.example, redirectCode: 302}", "/a?b", 302, "http://other.example/a?b"),
            ("{scheme: https}", "/a", 301, "https://echo/a"),
            ("{scheme: https, port: 8443, redirectCode: 307}", "/", 307, "https://echo:8443/"),
            ("{authority: 'x.example:444', uri: /y}", "/", 301, "http://x.example:444/y"),
        ];
        for (redirect, path, status, location) in cases {
            route(mesh, &format!("- redirect: {redirect}\n"))?;
            let answer = mesh.get("client", &format!("http://echo{path}"))?;
            ensure!(
                (answer.status, answer.header("location")) == (status, Some(location)),
                "{redirect}: {answer:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn rewrite() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let cases = [
            ("[{uri: {prefix: /api/}}]", "{uri: /}", "/api/items?x=1", "/items?x=1", "echo"),
            ("[{uri: {prefix: /api}}]", "{uri: /}", "/api/items", "//items", "echo"),
            ("[{uri: {exact: /one}}]", "{uri: /two}", "/one?q", "/two?q", "echo"),
            ("[{uri: {regex: '/u/.*'}}]", "{uri: /whole}", "/u/7?a=b", "/whole?a=b", "echo"),
            ("[{uri: {prefix: /}}]", "{authority: inner.example}", "/a", "/a", "inner.example"),
            (
                "[{uri: {prefix: /}}]",
                "{uriRegexRewrite: {match: '^/customer/([0-9]+)/(.*)$', rewrite: '/\\2/of/\\1'}}",
                "/customer/42/orders?p=1",
                "/orders/of/42?p=1",
                "echo",
            ),
        ];
        for (matches, rewrite, path, seen_path, seen_host) in cases {
            route(
                mesh,
                &format!(
                    "- match: {matches}\n  rewrite: {rewrite}\n  route: [{{destination: {{host: echo}}}}]\n"
                ),
            )?;
            let seen = mesh.get("client", &format!("http://echo{path}"))?.json()?;
            ensure!(seen["path"] == seen_path && seen["host"] == seen_host, "{rewrite}: {seen}");
            if path != seen_path {
                ensure!(got_header(&seen, "x-envoy-original-path").as_deref() == Some(path), "{seen}");
            }
        }
        Ok(())
    });
}

#[test]
fn direct_response() {
    story(|mesh| {
        deploy::echo(mesh)?;
        route(
            mesh,
            "- match: [{uri: {exact: /text}}]\n  directResponse: {status: 418, body: {string: 'short and stout'}}\n  \
             headers: {response: {set: {content-type: text/teapot}}}\n\
             - match: [{uri: {exact: /bytes}}]\n  directResponse: {status: 200, body: {bytes: aGVsbG8=}}\n\
             - directResponse: {status: 503}\n",
        )?;
        let answer = mesh.get("client", "http://echo/text")?;
        ensure!((answer.status, answer.body.as_str()) == (418, "short and stout"), "{answer:?}");
        ensure!(answer.header("content-type") == Some("text/teapot"), "{answer:?}");
        ensure!(mesh.get("client", "http://echo/bytes")?.body == "hello");
        let answer = mesh.get("client", "http://echo/")?;
        ensure!((answer.status, answer.body.as_str(), answer.app()) == (503, "", ""), "{answer:?}");
        Ok(())
    });
}

#[test]
fn headers_at_both_levels() {
    story(|mesh| {
        deploy::echo(mesh)?;
        route(
            mesh,
            "
- headers:
    request:
      set: {x-set: route, host: set.example}
      add: {x-add: route}
      remove: [x-remove]
    response:
      set: {x-answer: route}
      remove: [x-app]
  route:
  - destination: {host: echo, subset: v1}
    headers:
      request: {add: {x-add: destination}}
      response: {add: {x-answer: destination}}
",
        )?;
        let request = mesh.http("client", "http://echo/")?;
        let answer =
            request.header("x-set", "mine").header("x-add", "mine").header("x-remove", "mine").send()?;
        let seen = answer.json()?;
        ensure!(got_header(&seen, "x-set").as_deref() == Some("route"), "{seen}");
        let added = got_header(&seen, "x-add").unwrap_or_default();
        ensure!(
            added.starts_with("mine") && added.contains("route") && added.contains("destination"),
            "{seen}"
        );
        ensure!(got_header(&seen, "x-remove").is_none(), "{seen}");
        ensure!(seen["host"] == "set.example", "{seen}");
        ensure!(answer.header("x-app").is_none(), "{answer:?}");
        let answers: Vec<&str> = answer
            .headers
            .iter()
            .filter(|(name, _)| name == "x-answer")
            .map(|(_, value)| value.as_str())
            .collect();
        ensure!(answers.contains(&"route"), "{answers:?}");
        Ok(())
    });
}

#[test]
fn timeout_is_504() {
    story(|mesh| {
        deploy::echo(mesh)?;
        route(mesh, "- timeout: 0.3s\n  route: [{destination: {host: echo}}]\n")?;
        let start = Instant::now();
        let answer = mesh.get("client", "http://echo/sleep/5000")?;
        ensure!(answer.status == 504, "{answer:?}");
        let took = start.elapsed();
        ensure!(took >= Duration::from_millis(300) && took < Duration::from_secs(3), "after {took:?}");
        ensure!(mesh.get("client", "http://echo/sleep/10")?.status == 200);
        Ok(())
    });
}

#[test]
fn retries() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let tries =
            |path: &str| -> Result<u64> { Ok(hits(mesh, "echo-v1", path)? + hits(mesh, "echo-v2", path)?) };
        let one = "route: [{destination: {host: echo, subset: v1}}]\n";
        // Nothing said: an answer of 503 is an answer.
        route(mesh, &format!("- {one}"))?;
        ensure!(mesh.get("client", "http://echo/fail/default/1")?.status == 503);
        ensure!(tries("/fail/default/1")? == 1);

        route(mesh, &format!("- retries: {{attempts: 3, retryOn: '5xx', backoff: 5ms}}\n  {one}"))?;
        let answer = mesh.get("client", "http://echo/fail/twice/2")?;
        ensure!(answer.status == 200 && tries("/fail/twice/2")? == 3, "{answer:?}");
        let answer = mesh.get("client", "http://echo/fail/often/9")?;
        ensure!(answer.status == 503 && tries("/fail/often/9")? == 4, "{answer:?}");

        route(
            mesh,
            &format!("- retries: {{attempts: 2, retryOn: '418,gateway-error', backoff: 5ms}}\n  {one}"),
        )?;
        ensure!(mesh.get("client", "http://echo/fail/teapot/1?status=418")?.status == 200);
        ensure!(mesh.get("client", "http://echo/fail/gateway/1?status=502")?.status == 200);
        ensure!(mesh.get("client", "http://echo/fail/plain/1?status=500")?.status == 500);

        route(mesh, &format!("- retries: {{attempts: 2, retryOn: reset, backoff: 5ms}}\n  {one}"))?;
        ensure!(mesh.get("client", "http://echo/close")?.status == 503);
        ensure!(tries("/close")? == 3, "{} tries", tries("/close")?);

        route(
            mesh,
            &format!(
                "- retries: {{attempts: 1, perTryTimeout: 200ms, retryOn: '5xx', backoff: 5ms}}\n  {one}"
            ),
        )?;
        let answer = mesh.get("client", "http://echo/sleep/4000")?;
        ensure!(
            answer.status == 504 && tries("/sleep/4000")? == 2,
            "{answer:?}, {} tries",
            tries("/sleep/4000")?
        );

        route(mesh, &format!("- retries: {{attempts: 0}}\n  {one}"))?;
        ensure!(mesh.get("client", "http://echo/fail/off/1")?.status == 503 && tries("/fail/off/1")? == 1);

        // A body is sent again with the next try.
        route(mesh, &format!("- retries: {{attempts: 3, retryOn: '5xx', backoff: 5ms}}\n  {one}"))?;
        let answer = mesh.http("client", "http://echo/fail/body/1")?.method("POST").body("hello").send()?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    });
}

#[test]
fn fault_delay_and_abort() {
    story(|mesh| {
        deploy::echo(mesh)?;
        route(
            mesh,
            "- match: [{headers: {end-user: {exact: jason}}}]\n  \
             fault: {delay: {fixedDelay: 600ms, percentage: {value: 100}}, abort: {httpStatus: 555, percentage: {value: 100}}}\n  \
             route: [{destination: {host: echo}}]\n\
             - fault: {abort: {httpStatus: 500, percentage: {value: 30}}}\n  route: [{destination: {host: echo}}]\n",
        )?;
        let start = Instant::now();
        let answer = mesh.http("client", "http://echo/fault")?.header("end-user", "jason").send()?;
        ensure!(answer.status == 555 && answer.body == "fault filter abort", "{answer:?}");
        ensure!(start.elapsed() >= Duration::from_millis(600), "after {:?}", start.elapsed());
        ensure!(
            hits(mesh, "echo-v1", "/fault")? + hits(mesh, "echo-v2", "/fault")? == 0,
            "it reached the application"
        );
        let report = mesh.many("client", "http://echo/", 1000, 4)?;
        let percent = f64::from(report.statuses[&500]) / 10.0;
        ensure!((25.0..=35.0).contains(&percent), "{percent} % aborted instead of 30");
        // A percentage that is not given is none.
        route(mesh, "- fault: {abort: {httpStatus: 500}}\n  route: [{destination: {host: echo}}]\n")?;
        mesh.many("client", "http://echo/", 50, 2)?.none_failed()?;
        Ok(())
    });
}

#[test]
fn mirror() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let to_v1 = "route: [{destination: {host: echo, subset: v1}}]\n";
        route(mesh, &format!("- mirror: {{host: echo, subset: v2}}\n  {to_v1}"))?;
        for _ in 0..10 {
            let answer =
                mesh.http("client", "http://echo/mirrored")?.method("POST").body("payload").send()?;
            ensure!((answer.status, answer.version()) == (200, "v1"), "{answer:?}");
        }
        eventually("mirrored", Duration::from_secs(5), || {
            ensure!(
                hits(mesh, "echo-v2", "/mirrored")? == 10,
                "{} of 10",
                hits(mesh, "echo-v2", "/mirrored")?
            );
            Ok(())
        })?;
        ensure!(hits(mesh, "echo-v1", "/mirrored")? == 10);
        let (_, last) = weft_tests::get(mesh.the("echo-v2")?.at(8080), "/hits/mirrored")?;
        let last: serde_json::Value = serde_json::from_str(&last)?;
        ensure!(last["last"]["host"] == "echo" && last["last"]["method"] == "POST", "{last}");

        route(
            mesh,
            &format!(
                "- mirrors:\n  - destination: {{host: echo, subset: v2}}\n    percentage: {{value: 30}}\n  {to_v1}"
            ),
        )?;
        mesh.many("client", "http://echo/some", 500, 4)?.none_failed()?;
        eventually("a part mirrored", Duration::from_secs(5), || {
            let seen = hits(mesh, "echo-v2", "/some")?;
            ensure!((100..=200).contains(&seen), "{seen} of 500 mirrored instead of 150");
            Ok(())
        })?;
        // The mirror is slow, breaks or is not there: nobody waits for it.
        route(mesh, &format!("- mirror: {{host: nowhere}}\n  {to_v1}"))?;
        ensure!(mesh.get("client", "http://echo/")?.status == 200);
        Ok(())
    });
}

#[test]
fn copies_are_counted_and_logged_as_requests_to_where_they_went() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let to_v1 = "route: [{destination: {host: echo, subset: v1}}]\n";
        route(mesh, &format!("- name: shadowed\n  mirror: {{host: echo, subset: v2}}\n  {to_v1}"))?;
        for _ in 0..3 {
            ensure!(mesh.get("client", "http://echo/copied")?.status == 200);
        }
        eventually("counted", Duration::from_secs(5), || {
            let metrics = mesh.metrics()?;
            for version in ["v1", "v2"] {
                for reporter in ["source", "destination"] {
                    let labels =
                        [("reporter", reporter), ("destination_version", version), ("response_code", "200")];
                    let count = metrics.count("istio_requests_total", &labels);
                    ensure!(count == 3, "{count} of {version} by the {reporter}");
                }
            }
            let copies = metrics.count("weft_mirror_copies_total", &[("result", "answered")]);
            ensure!(copies == 3, "{copies}");
            Ok(())
        })?;
        eventually("logged", Duration::from_secs(5), || {
            let log = mesh.access_log()?;
            let ends =
                |end: &str| log.iter().filter(|line| line.contains("/copied") && line.ends_with(end)).count();
            ensure!((ends(" shadowed"), ends(" shadowed (mirror)")) == (3, 3), "{log:#?}");
            Ok(())
        })?;
        route(mesh, &format!("- mirror: {{host: nowhere}}\n  {to_v1}"))?;
        ensure!(mesh.get("client", "http://echo/")?.status == 200);
        eventually("counted", Duration::from_secs(5), || {
            let metrics = mesh.metrics()?;
            ensure!(metrics.count("weft_mirror_copies_total", &[("result", "no_destination")]) == 1);
            Ok(())
        })
    });
}

#[test]
fn a_copy_that_cannot_keep_up_is_given_up_and_counted() {
    story(|mesh| {
        // It takes connections, and reads nothing.
        let sink = mesh.pod("sink").label("app", "sink").start()?;
        let _listener = sink.listen(8080)?;
        mesh.service("sink").selector("app", "sink").port("http", 80, 8080).create()?;
        deploy::echo(mesh)?;
        route(mesh, "- mirror: {host: sink}\n  route: [{destination: {host: echo, subset: v1}}]\n")?;
        let long = mesh.world().dir().join("long");
        std::fs::write(&long, vec![b'x'; 16 << 20])?;
        let data = format!("@{}", long.display());
        let words = [
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--data-binary",
            &data,
            "http://echo/long",
        ];
        let answer = mesh.exec("client", &words)?;
        ensure!(answer.stdout == "200", "{answer:?}");
        eventually("counted", Duration::from_secs(5), || {
            let metrics = mesh.metrics()?;
            ensure!(metrics.count("weft_mirror_copies_total", &[("result", "too_slow")]) == 1);
            let to_sink = [("reporter", "source"), ("destination_workload", "sink"), ("response_code", "0")];
            ensure!(metrics.count("istio_requests_total", &to_sink) == 1);
            Ok(())
        })?;
        eventually("logged", Duration::from_secs(5), || {
            let log = mesh.access_log()?;
            ensure!(log.iter().any(|line| line.contains("mirror_given_up{too_slow}")), "{log:#?}");
            Ok(())
        })
    });
}

#[test]
fn cors() {
    story(|mesh| {
        deploy::echo(mesh)?;
        route(
            mesh,
            "
- corsPolicy:
    allowOrigins: [{exact: 'https://shop.example'}, {regex: 'https://.*[.]dev[.]example'}]
    allowMethods: [GET, PUT]
    allowHeaders: [x-token]
    exposeHeaders: [x-app]
    maxAge: 10m
    allowCredentials: true
  route: [{destination: {host: echo}}]
",
        )?;
        let preflight = |origin: &str| {
            let request = mesh.http("client", "http://echo/")?.method("OPTIONS").header("Origin", origin);
            request.header("Access-Control-Request-Method", "PUT").send()
        };
        for origin in ["https://shop.example", "https://a.dev.example"] {
            let answer = preflight(origin)?;
            ensure!(answer.status == 200 && answer.app().is_empty(), "{answer:?}");
            ensure!(answer.header("access-control-allow-origin") == Some(origin), "{answer:?}");
            ensure!(
                answer.header("access-control-allow-methods").is_some_and(|m| m.contains("PUT")),
                "{answer:?}"
            );
            ensure!(answer.header("access-control-allow-headers") == Some("x-token"), "{answer:?}");
            ensure!(answer.header("access-control-max-age") == Some("600"), "{answer:?}");
            ensure!(answer.header("access-control-allow-credentials") == Some("true"), "{answer:?}");
            let answer = mesh.http("client", "http://echo/")?.header("Origin", origin).send()?;
            ensure!(answer.header("access-control-allow-origin") == Some(origin), "{answer:?}");
            ensure!(answer.header("access-control-expose-headers") == Some("x-app"), "{answer:?}");
        }
        // Not its business: forwarded to the application, and no leave given.
        let answer = preflight("https://evil.example")?;
        ensure!(!answer.app().is_empty(), "{answer:?}");
        ensure!(answer.header("access-control-allow-origin").is_none(), "{answer:?}");
        Ok(())
    });
}

#[test]
fn weights_hold_and_change_twenty_times_under_load() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let weights = |v1: u32, v2: u32| {
            format!(
                "- match: [{{headers: {{end-user: {{exact: jason}}}}}}]\n  route: [{{destination: {{host: echo, subset: v2}}}}]\n\
                 - route:\n  - destination: {{host: echo, subset: v1}}\n    weight: {v1}\n  \
                 - destination: {{host: echo, subset: v2}}\n    weight: {v2}\n"
            )
        };
        route(mesh, &weights(95, 5))?;
        let report = mesh.many("client", "http://echo/", 2000, 4)?;
        let percent = report.none_failed()?.percent("v2");
        println!("95/5 over 2,000 requests: {percent:.2} % to v2");
        ensure!((3.5..=6.5).contains(&percent), "{percent} % to v2");

        let load = mesh.load("client", &["http://echo/", "-c", "32"])?;
        for change in 0..20 {
            let (v1, v2) = if change % 2 == 0 { (0, 100) } else { (100, 0) };
            route(mesh, &weights(v1, v2))?;
            // In force from the moment that `weft status --wait-applied` has said so.
            let expected = if v2 == 100 { "v2" } else { "v1" };
            let report = mesh.many("client", "http://echo/", 20, 2)?;
            ensure!(
                report.none_failed()?.versions.keys().eq([expected]),
                "change {change}: {:?}",
                report.versions
            );
        }
        let report = load.finish()?;
        println!("20 changes, {} requests, longest gap {:.1} ms", report.requests, report.longest_gap_ms);
        report.none_failed().context("under load")?;
        ensure!(report.versions.len() == 2, "{:?}", report.versions);
        Ok(())
    });
}

#[test]
fn load_balancing_policies() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let policy = |simple: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: echo-policy, namespace: default, creationTimestamp: '2020-01-01T00:00:00Z'}}\n\
                 spec:\n  host: echo\n  trafficPolicy: {{loadBalancer: {{simple: {simple}}}}}\n"
            )
        };
        mesh.apply_now("policy", &policy("ROUND_ROBIN"))?;
        let report = mesh.many("client", "http://echo/", 100, 1)?;
        let turns = report.none_failed()?.percent("v1");
        ensure!((49.0..=51.0).contains(&turns), "taking turns: {:?}", report.versions);
        for simple in ["RANDOM", "LEAST_REQUEST"] {
            mesh.apply_now("policy", &policy(simple))?;
            let report = mesh.many("client", "http://echo/", 400, 4)?;
            let percent = report.none_failed()?.percent("v1");
            ensure!((35.0..=65.0).contains(&percent), "{simple}: {:?}", report.versions);
        }
        Ok(())
    });
}

#[test]
fn a_delegate_has_rules_of_its_own_under_its_roots() {
    story(|mesh| {
        deploy::echo(mesh)?;
        mesh.namespace("team", true)?;
        let delegate = |subset: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: items, namespace: team}}\nspec:\n  http:\n\
                 \u{20} - {{match: [{{uri: {{prefix: /shop/items}}}}], route: [{{destination: {{host: echo.default.svc.cluster.local, subset: {subset}}}}}]}}\n"
            )
        };
        let root = "- {match: [{uri: {prefix: /shop}}], rewrite: {uri: /}, headers: {request: {set: {x-by: root}}}, \
                    delegate: {name: items, namespace: team}}\n\
                    - {route: [{destination: {host: echo, subset: v1}}]}\n";
        mesh.apply("team", &delegate("v2"))?;
        route(mesh, root)?;
        let answer = mesh.get("client", "http://echo/shop/items/7")?;
        let seen = answer.json()?;
        ensure!((answer.version(), seen["path"].as_str()) == ("v2", Some("//7")), "{answer:?}");
        ensure!(got_header(&seen, "x-by").as_deref() == Some("root"), "{answer:?}");
        let answer = mesh.get("client", "http://echo/shop")?;
        ensure!((answer.version(), answer.json()?["path"].as_str()) == ("v1", Some("/shop")), "{answer:?}");
        let told = mesh.explain("client", "echo", &["--path", "/shop/items"])?;
        ensure!(told.to_string().contains("delegates to VirtualService team/items"), "{told}");
        mesh.apply_now("team", &delegate("v1"))?;
        ensure!(mesh.get("client", "http://echo/shop/items/7")?.version() == "v1", "the old delegate");
        mesh.delete("team")?;
        mesh.wait_applied()?;
        let answer = mesh.get("client", "http://echo/shop/items/7")?;
        ensure!(
            answer.json()?["path"].as_str() == Some("/shop/items/7"),
            "it goes on to the next rule: {answer:?}"
        );
        let told = mesh.weft(&["status"])?.stdout;
        ensure!(told.contains("no VirtualService team/items is in force"), "{told}");
        Ok(())
    });
}
