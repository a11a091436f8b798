//! Numbers out of text: what `/proc`, `wrk`, `iperf3` and the bench peer say; and their medians.

use anyhow::{Context, Result, bail, ensure};

/// One measurement.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// In the row's unit: per second, or bits per second.
    pub rate: f64,
    /// Operations done in all; for a stream, gigabytes.
    pub operations: f64,
    /// Median latency in microseconds, where the tool measures it.
    pub p50_us: Option<f64>,
    /// The same, 99th percentile.
    pub p99_us: Option<f64>,
}

/// The middle value, or the mean of the two in the middle; `None` if there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        return Some(values[middle]);
    }
    Some(f64::midpoint(*values.get(middle.checked_sub(1)?)?, values[middle]))
}

/// The value that `per_cent` of them do not exceed; `None` if there are none.
pub fn percentile(values: &[f64], per_cent: usize) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * per_cent).div_ceil(100).max(1);
    values.get(rank - 1).copied()
}

/// `utime + stime` in `/proc/PID/stat`.
pub fn cpu_ticks(stat: &str) -> Option<u64> {
    // The second field is the program's name in brackets, and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// A field of `/proc/PID/status` that is given in kB, in MiB.
pub fn status_mib(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// What `wrk --latency` printed.
pub fn wrk(output: &str) -> Result<Sample> {
    for line in output.lines().map(str::trim) {
        ensure!(!line.starts_with("Non-2xx") && !line.starts_with("Socket errors"), "wrk: {line}");
    }
    let line = |found: &dyn Fn(&str) -> bool| output.lines().map(str::trim).find(|line| found(line));
    let first = |line: Option<&str>| -> Option<f64> { line?.split_whitespace().next()?.parse().ok() };
    let percentile =
        |prefix: &str| micros(line(&|line| line.starts_with(prefix))?.split_whitespace().nth(1)?);
    let rate = line(&|line| line.starts_with("Requests/sec:")).and_then(|line| line.split_once(':'));
    let sample = Sample {
        rate: first(rate.map(|(_, rate)| rate)).context("wrk printed no rate")?,
        operations: first(line(&|line| line.contains(" requests in "))).context("wrk printed no total")?,
        p50_us: percentile("50%"),
        p99_us: percentile("99%"),
    };
    ensure!(sample.operations > 0.0, "wrk had no answer");
    Ok(sample)
}

/// A time as `wrk` prints it, in microseconds.
fn micros(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| c.is_ascii_alphabetic())?;
    let factor = match &text[digits..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some(text[..digits].parse::<f64>().ok()? * factor)
}

/// What `iperf3 --json` printed.
pub fn iperf3(output: &str) -> Result<Sample> {
    let value: serde_json::Value = serde_json::from_str(output).context("iperf3 printed no JSON")?;
    if let Some(error) = value["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let received = &value["end"]["sum_received"];
    let number = |field: &str| received[field].as_f64().context("iperf3 received nothing");
    let (rate, bytes) = (number("bits_per_second")?, number("bytes")?);
    Ok(Sample { rate: rate / 1e9, operations: bytes / 1e9, ..Sample::default() })
}

/// What the bench peer printed.
pub fn peer(output: &str) -> Result<Sample> {
    let field = |name: &str| -> Result<f64> {
        let value = output.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).with_context(|| format!("no {name} in {output:?}"))
    };
    let errors = field("errors")?;
    ensure!(errors == 0.0, "{errors} connections failed");
    let operations = field("operations")?;
    ensure!(operations > 0.0, "no request was answered");
    let (p50_us, p99_us) = (Some(field("p50_us")?), Some(field("p99_us")?));
    Ok(Sample { rate: operations / field("seconds")?, operations, p50_us, p99_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "Running 1s test @ http://127.0.0.1/
  2 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   566.16us  450.86us   7.62ms   90.69%
    Req/Sec    30.11k     3.15k   35.67k    60.00%
  Latency Distribution
     50%  433.00us
     75%  622.00us
     90%    1.04ms
     99%    2.35ms
  59912 requests in 1.00s, 69.31MB read
Requests/sec:  59847.05
Transfer/sec:     69.24MB
";

    #[test]
    fn wrk_is_read() {
        let sample = wrk(WRK).expect("a sample");
        let expected =
            Sample { rate: 59847.05, operations: 59912.0, p50_us: Some(433.0), p99_us: Some(2350.0) };
        assert_eq!(sample, expected);
        let failed = WRK.replace("Requests/sec", "  Non-2xx or 3xx responses: 7\nRequests/sec");
        assert!(wrk(&failed).is_err_and(|error| error.to_string().contains("Non-2xx or 3xx responses: 7")));
        assert!(wrk("unable to connect").is_err());
    }

    #[test]
    fn peer_is_read() {
        let sample = peer("operations=100 seconds=2.0 p50_us=14.5 p99_us=16.0 errors=0\n").expect("a sample");
        assert_eq!(sample, Sample { rate: 50.0, operations: 100.0, p50_us: Some(14.5), p99_us: Some(16.0) });
        assert!(peer("operations=100 seconds=2.0 p50_us=14.5 p99_us=16.0 errors=1").is_err());
    }

    #[test]
    fn iperf3_is_read() {
        let sample = iperf3(r#"{"end":{"sum_received":{"bytes":2e9,"bits_per_second":8e9}}}"#);
        assert_eq!(sample.expect("a sample"), Sample { rate: 8.0, operations: 2.0, ..Sample::default() });
        let refused = iperf3(r#"{"start":{},"error":"unable to connect"}"#);
        assert!(refused.is_err_and(|error| error.to_string() == "iperf3: unable to connect"));
    }

    #[test]
    fn proc_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 100 1000 200";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(status_mib("VmPeak:\t  9000 kB\nVmRSS:\t  2048 kB\n", "VmRSS"), Some(2.0));
        assert_eq!(status_mib("VmPeak:\t  9000 kB\n", "VmRSS"), None);
    }

    #[test]
    fn median_and_percentile() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
        let ramp: Vec<f64> = (1..=60).map(f64::from).collect();
        assert_eq!(percentile(&ramp, 50), Some(30.0));
        assert_eq!(percentile(&ramp, 99), Some(60.0));
        assert_eq!(percentile(&[], 99), None);
    }
}
