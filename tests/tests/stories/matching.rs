//! Every field of a VirtualService's `match`, over the wire.

use anyhow::{Result, ensure};
use weft_tests::{Mesh, Request, story};

use crate::deploy;

type Headers<'a> = &'a [(&'a str, &'a str)];

/// A rule that sends what matches to v2, the rest to v1.
fn two_if(mesh: &Mesh, matches: &str) -> Result<()> {
    deploy::route(
        mesh,
        &format!(
            "- match: {matches}\n  route: [{{destination: {{host: echo, subset: v2}}}}]\n\
             - route: [{{destination: {{host: echo, subset: v1}}}}]\n"
        ),
    )
}

/// Sends what `refine` makes of a request for `path` and says where it went.
fn goes(mesh: &Mesh, path: &str, refine: impl FnOnce(Request) -> Request) -> Result<String> {
    let answer = refine(mesh.http("client", &format!("http://echo{path}"))?).send()?;
    ensure!(answer.status == 200, "{path}: {answer:?}");
    Ok(answer.version().to_owned())
}

#[test]
fn by_path() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let cases: [(&str, &[&str], &[&str]); 7] = [
            ("[{uri: {exact: /a}}]", &["/a", "/a?x=1"], &["/", "/a/", "/A", "/ab"]),
            ("[{uri: {prefix: /a}}]", &["/a", "/ab", "/a/b?q"], &["/", "/A", "/b/a"]),
            ("[{uri: {regex: '/a[0-9]+'}}]", &["/a1", "/a42?x"], &["/a", "/a1b", "/x/a1"]),
            ("[{uri: {exact: /Ab}, ignoreUriCase: true}]", &["/ab", "/AB"], &["/abc"]),
            ("[{uri: {prefix: /Ab}, ignoreUriCase: true}]", &["/abc", "/ABC/d"], &["/bc"]),
            ("[{uri: {exact: /a}}, {uri: {exact: /b}}]", &["/a", "/b"], &["/c"]),
            ("[{uri: {prefix: /a}, method: {exact: GET}, headers: {x: {exact: y}}}]", &[], &["/a"]),
        ];
        for (matches, yes, no) in cases {
            two_if(mesh, matches)?;
            for (paths, expected) in [(yes, "v2"), (no, "v1")] {
                for path in paths {
                    let version = goes(mesh, path, |request| request)?;
                    ensure!(version == expected, "{matches}: {path} went to {version}");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn by_headers() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let cases: [(&str, &[Headers<'_>], &[Headers<'_>]); 8] = [
            (
                "[{headers: {end-user: {exact: jason}}}]",
                &[&[("END-USER", "jason")]],
                &[&[], &[("end-user", "Jason")]],
            ),
            (
                "[{headers: {cookie: {regex: '^(.*?;)?(user=jason)(;.*)?$'}}}]",
                &[&[("cookie", "a=b;user=jason")]],
                &[&[("cookie", "user=jasonx")]],
            ),
            ("[{headers: {x: {prefix: ab}}}]", &[&[("x", "abc")]], &[&[("x", "xab")]]),
            ("[{headers: {x: {}}}]", &[&[("x", "anything")], &[("x", "")]], &[&[]]),
            (
                "[{headers: {testuser: {regex: '^.+$'}}}]",
                &[&[("testuser", "me")]],
                &[&[], &[("testuser", "")]],
            ),
            ("[{withoutHeaders: {x: {}}}]", &[&[]], &[&[("x", "1")]]),
            ("[{withoutHeaders: {x: {exact: '1'}}}]", &[&[], &[("x", "2")]], &[&[("x", "1")]]),
            (
                "[{headers: {a: {exact: '1'}, b: {exact: '2'}}}]",
                &[&[("b", "2"), ("a", "1")]],
                &[&[("a", "1")]],
            ),
        ];
        for (matches, yes, no) in cases {
            two_if(mesh, matches)?;
            for (requests, expected) in [(yes, "v2"), (no, "v1")] {
                for headers in requests {
                    let version = goes(mesh, "/", |mut request| {
                        for (name, value) in *headers {
                            request = request.header(name, value);
                        }
                        request
                    })?;
                    ensure!(version == expected, "{matches}: {headers:?} went to {version}");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn by_method_query_authority_and_scheme() {
    story(|mesh| {
        deploy::echo(mesh)?;
        two_if(mesh, "[{method: {exact: POST}}, {method: {regex: 'DEL.*'}}]")?;
        for (method, expected) in [("GET", "v1"), ("POST", "v2"), ("DELETE", "v2"), ("PUT", "v1")] {
            let version = goes(mesh, "/", |request| request.method(method))?;
            ensure!(version == expected, "{method} went to {version}");
        }
        two_if(
            mesh,
            "[{queryParams: {a: {exact: '1'}, b: {regex: '[xy]'}}}, {queryParams: {c: {}}}, {queryParams: {d: {prefix: pre}}}]",
        )?;
        for (query, expected) in [
            ("?a=1&b=x", "v2"),
            ("?b=y&a=1&z", "v2"),
            ("?c", "v2"),
            ("?c=", "v2"),
            ("?d=prefixed", "v2"),
            ("?a=1", "v1"),
            ("?a=1&b=z", "v1"),
            ("?A=1&b=x", "v1"),
            ("", "v1"),
        ] {
            let version = goes(mesh, &format!("/{query}"), |request| request)?;
            ensure!(version == expected, "{query} went to {version}");
        }
        two_if(mesh, "[{authority: {prefix: 'echo.default'}}]")?;
        for (host, expected) in [("echo.default", "v2"), ("echo.default.svc:80", "v2"), ("echo", "v1")] {
            let version = goes(mesh, "/", |request| request.header("Host", host))?;
            ensure!(version == expected, "{host} went to {version}");
        }
        two_if(mesh, "[{scheme: {exact: https}}]")?;
        ensure!(goes(mesh, "/", |request| request)? == "v1");
        two_if(mesh, "[{scheme: {exact: http}}]")?;
        ensure!(goes(mesh, "/", |request| request)? == "v2");
        Ok(())
    });
}

#[test]
fn by_caller_and_port() {
    story(|mesh| {
        deploy::echo_pods(mesh)?;
        mesh.pod("canary").label("app", "client").label("track", "canary").start()?;
        mesh.namespace("tests", true)?;
        mesh.pod("tester").namespace("tests").start()?;
        mesh.service("two")
            .selector("app", "echo")
            .port("http", 80, 8080)
            .port("http-admin", 81, 8080)
            .create()?;
        mesh.apply("two-subsets", &deploy::subsets("two"))?;
        mesh.start_agent()?;
        two_if(mesh, "[{sourceLabels: {track: canary}}, {sourceNamespace: tests}]")?;
        for (pod, expected) in [("client", "v1"), ("canary", "v2"), ("tester", "v2")] {
            let answer = mesh.get(pod, "http://echo.default/")?;
            ensure!(answer.version() == expected, "{pod}: {answer:?}");
        }
        // Every rule is for others: the VirtualService is not there for this caller.
        deploy::route(
            mesh,
            "- match: [{sourceLabels: {track: canary}}]\n  route: [{destination: {host: echo, subset: v2}}]\n",
        )?;
        let report = mesh.many("client", "http://echo/", 60, 2)?;
        ensure!(report.none_failed()?.versions.len() == 2, "{:?}", report.versions);

        let rules = "- match: [{port: 81}]\n  route: [{destination: {host: two, subset: v2}}]\n\
                     - route: [{destination: {host: two, subset: v1}}]\n";
        mesh.apply_now("two", &deploy::virtual_service("two", "http", rules))?;
        ensure!(mesh.get("client", "http://two/")?.version() == "v1");
        ensure!(mesh.get("client", "http://two:81/")?.version() == "v2");
        Ok(())
    });
}

#[test]
fn by_nothing_is_404_and_unknown_places_are_503() {
    story(|mesh| {
        deploy::echo(mesh)?;
        deploy::route(mesh, "- match: [{uri: {prefix: /only}}]\n  route: [{destination: {host: echo}}]\n")?;
        ensure!(mesh.get("client", "http://echo/only")?.status == 200);
        ensure!(mesh.get("client", "http://echo/other")?.status == 404);
        deploy::route(
            mesh,
            "- match: [{uri: {exact: /subset}}]\n  route: [{destination: {host: echo, subset: v9}}]\n\
             - match: [{uri: {exact: /host}}]\n  route: [{destination: {host: nowhere}}]\n\
             - route: [{destination: {host: echo, subset: v1}}]\n",
        )?;
        ensure!(mesh.get("client", "http://echo/subset")?.status == 503);
        ensure!(mesh.get("client", "http://echo/host")?.status == 503);
        // Only there: the other routes are as they should be.
        ensure!(mesh.get("client", "http://echo/")?.version() == "v1");
        Ok(())
    });
}

#[test]
fn of_several_virtual_services_for_a_host_the_oldest_holds() {
    story(|mesh| {
        deploy::echo(mesh)?;
        let dated = |name: &str, time: &str, subset: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
                 metadata: {{name: {name}, namespace: default, creationTimestamp: '{time}'}}\n\
                 spec:\n  hosts: [echo.default.svc.cluster.local]\n  http:\n  - route: [{{destination: {{host: echo, subset: {subset}}}}}]\n"
            )
        };
        mesh.apply("young", &dated("young", "2026-02-01T00:00:00Z", "v1"))?;
        mesh.apply_now("old", &dated("old", "2026-01-01T00:00:00Z", "v2"))?;
        let report = mesh.many("client", "http://echo/", 20, 1)?;
        ensure!(report.none_failed()?.versions.keys().eq(["v2"]), "{:?}", report.versions);
        mesh.delete("old")?;
        mesh.wait_applied()?;
        let report = mesh.many("client", "http://echo/", 20, 1)?;
        ensure!(report.none_failed()?.versions.keys().eq(["v1"]), "{:?}", report.versions);
        Ok(())
    });
}

#[test]
fn by_wildcard_hosts_and_only_where_it_is_exported() {
    story(|mesh| {
        deploy::echo_pods(mesh)?;
        mesh.namespace("other", true)?;
        mesh.pod("neighbour").namespace("other").start()?;
        mesh.start_agent()?;
        let to_v2 = |host: &str, extra: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: wild, namespace: default}}\n\
                 spec:\n  hosts: ['{host}']\n{extra}  http:\n  - route: [{{destination: {{host: echo, subset: v2}}}}]\n"
            )
        };
        mesh.apply_now("wild", &to_v2("*.default.svc.cluster.local", ""))?;
        for pod in ["client", "neighbour"] {
            let report = mesh.many(pod, "http://echo.default/", 20, 1)?;
            ensure!(report.none_failed()?.versions.keys().eq(["v2"]), "{pod}: {:?}", report.versions);
        }
        // An exact host beats it.
        deploy::route(mesh, "- route: [{destination: {host: echo, subset: v1}}]\n")?;
        let report = mesh.many("client", "http://echo/", 20, 1)?;
        ensure!(report.none_failed()?.versions.keys().eq(["v1"]), "{:?}", report.versions);
        mesh.delete("rules")?;

        mesh.apply_now("wild", &to_v2("echo", "  exportTo: ['.']\n"))?;
        let own = mesh.many("client", "http://echo/", 20, 1)?;
        ensure!(own.none_failed()?.versions.keys().eq(["v2"]), "{:?}", own.versions);
        let other = mesh.many("neighbour", "http://echo.default/", 60, 1)?;
        ensure!(other.none_failed()?.versions.len() == 2, "not exported, yet in force: {:?}", other.versions);
        Ok(())
    });
}
