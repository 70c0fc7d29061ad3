//! From a profile to classic BPF.
//!
//! One block per system call or run of system calls, each ending in returns, so every jump is short. The kernel caches the
//! verdict of calls whose block looks at no argument, so the linear search costs little.

use super::{Arg, Filter, Profile, Rule, known_elsewhere, numbers};
use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};
use std::collections::BTreeMap;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// Numbers from here on are the x32 calling convention, which no profile names.
const X32: u32 = 0x4000_0000;

/// The kernel's limit.
const INSTRUCTIONS_MAX: usize = 4096;

type Verdicts = BTreeMap<u32, Vec<(Vec<Arg>, u32)>>;

pub(super) fn compile(profile: &Profile) -> Result<Filter, String> {
    if profile.listener_path.is_some() {
        return Err("listenerPath (user notification) is not supported".into());
    }
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let verdicts = verdicts(profile, default)?;
    let mut program =
        vec![load(ARCH), jump(BPF_JEQ, ARCHITECTURE, 1, 0), ret(libc::SECCOMP_RET_KILL_PROCESS), load(NUMBER)];
    if cfg!(target_arch = "x86_64") {
        program.extend([jump(BPF_JGE, X32, 0, 1), ret(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)]);
    }
    for run in runs(&verdicts, default) {
        match run {
            Run::Plain { first, last, verdict } if first == last => {
                program.extend([jump(BPF_JEQ, first, 0, 1), ret(verdict)]);
            }
            Run::Plain { first, last, verdict } => {
                program.extend([jump(BPF_JGE, first, 0, 2), jump(BPF_JGT, last, 1, 0), ret(verdict)]);
            }
            Run::Conditional { number, rules } => program.extend(conditional(number, rules, default)?),
        }
    }
    program.push(ret(default));
    if program.len() > INSTRUCTIONS_MAX {
        return Err(format!("{} instructions, more than the kernel's {INSTRUCTIONS_MAX}", program.len()));
    }
    Ok(Filter { program, flags: flags(&profile.flags)? })
}

enum Run<'a> {
    Plain { first: u32, last: u32, verdict: u32 },
    Conditional { number: u32, rules: &'a [(Vec<Arg>, u32)] },
}

/// Neighbouring calls of the same verdict become one run; those with the default verdict need none.
fn runs(verdicts: &Verdicts, default: u32) -> Vec<Run<'_>> {
    let mut runs: Vec<Run<'_>> = Vec::new();
    for (&number, rules) in verdicts {
        if let [(args, verdict)] = rules.as_slice()
            && args.is_empty()
        {
            match runs.last_mut() {
                Some(Run::Plain { last, verdict: same, .. }) if *last + 1 == number && same == verdict => {
                    *last = number
                }
                _ if *verdict == default => {}
                _ => runs.push(Run::Plain { first: number, last: number, verdict: *verdict }),
            }
            continue;
        }
        runs.push(Run::Conditional { number, rules });
    }
    runs
}

/// Rules by number. A rule without conditions decides alone, whatever came with conditions before.
fn verdicts(profile: &Profile, default: u32) -> Result<Verdicts, String> {
    let numbers = numbers();
    let mut verdicts = Verdicts::new();
    for rule in &profile.syscalls {
        let verdict = action(&rule.action, rule.errno_ret.or(profile.default_errno_ret))?;
        for name in &rule.names {
            let Some(&number) = numbers.get(name.as_str()) else {
                if verdict != libc::SECCOMP_RET_ALLOW && verdict != default && !known_elsewhere(name) {
                    return Err(format!("unknown system call {name:?}"));
                }
                continue;
            };
            let entry = verdicts.entry(number).or_default();
            for args in alternatives(rule) {
                if args.is_empty() {
                    entry.clear();
                }
                if !entry.iter().any(|(args, _)| args.is_empty()) {
                    entry.push((args, verdict));
                }
            }
        }
    }
    Ok(verdicts)
}

/// Conditions on different arguments must all hold; several on the same argument are alternatives, as runc reads them.
fn alternatives(rule: &Rule) -> Vec<Vec<Arg>> {
    let repeated = rule.args.iter().any(|a| rule.args.iter().filter(|b| a.index == b.index).count() > 1);
    if repeated { rule.args.iter().map(|arg| vec![arg.clone()]).collect() } else { vec![rule.args.clone()] }
}

fn conditional(number: u32, rules: &[(Vec<Arg>, u32)], default: u32) -> Result<Vec<sock_filter>, String> {
    let mut body = Vec::new();
    for (args, verdict) in rules {
        let mut checks: Vec<Vec<sock_filter>> = Vec::new();
        for arg in args {
            checks.push(check(arg)?);
        }
        // Each check falls through when it holds and jumps to its end plus `FAIL` when it does not: patch the distance.
        let total: usize = checks.iter().map(Vec::len).sum::<usize>() + 1;
        let mut at = 0;
        for instructions in checks {
            for mut instruction in instructions {
                let left = total - at - 1;
                for target in [&mut instruction.jt, &mut instruction.jf] {
                    if *target == FAIL {
                        *target = u8::try_from(left).map_err(|_| "too many conditions in one rule")?;
                    }
                }
                body.push(instruction);
                at += 1;
            }
        }
        body.push(ret(*verdict));
    }
    body.push(ret(default));
    let skip = body.len() as u32;
    let mut block = vec![jump(BPF_JEQ, number, 1, 0), statement(BPF_JMP | libc::BPF_JA, skip)];
    block.append(&mut body);
    Ok(block)
}

/// Marks a jump to the next alternative; no real jump is that long.
const FAIL: u8 = 255;

/// Compares one 64-bit argument, high word first.
fn check(arg: &Arg) -> Result<Vec<sock_filter>, String> {
    if arg.index > 5 {
        return Err(format!("argument index {} is above 5", arg.index));
    }
    let low = ARGS + arg.index * 8;
    let high = low + 4;
    let (value_high, value_low) = ((arg.value >> 32) as u32, arg.value as u32);
    let two_words = |on_high: Vec<sock_filter>, on_low: sock_filter| {
        let mut code = vec![load(high)];
        code.extend(on_high);
        code.extend([load(low), on_low]);
        code
    };
    // Jumps over the low word's two instructions when the high word decides alone.
    Ok(match arg.op.as_str() {
        "SCMP_CMP_EQ" => two_words(vec![jump(BPF_JEQ, value_high, 0, FAIL)], jump(BPF_JEQ, value_low, 0, FAIL)),
        "SCMP_CMP_NE" => two_words(vec![jump(BPF_JEQ, value_high, 0, 2)], jump(BPF_JEQ, value_low, FAIL, 0)),
        "SCMP_CMP_GT" => two_words(
            vec![jump(BPF_JGT, value_high, 3, 0), jump(BPF_JEQ, value_high, 0, FAIL)],
            jump(BPF_JGT, value_low, 0, FAIL),
        ),
        "SCMP_CMP_GE" => two_words(
            vec![jump(BPF_JGT, value_high, 3, 0), jump(BPF_JEQ, value_high, 0, FAIL)],
            jump(BPF_JGE, value_low, 0, FAIL),
        ),
        "SCMP_CMP_LT" => two_words(
            vec![jump(BPF_JGT, value_high, FAIL, 0), jump(BPF_JEQ, value_high, 0, 2)],
            jump(BPF_JGE, value_low, FAIL, 0),
        ),
        "SCMP_CMP_LE" => two_words(
            vec![jump(BPF_JGT, value_high, FAIL, 0), jump(BPF_JEQ, value_high, 0, 2)],
            jump(BPF_JGT, value_low, FAIL, 0),
        ),
        "SCMP_CMP_MASKED_EQ" => vec![
            load(high),
            statement(BPF_ALU | BPF_AND | BPF_K, value_high),
            jump(BPF_JEQ, (arg.value_two >> 32) as u32, 0, FAIL),
            load(low),
            statement(BPF_ALU | BPF_AND | BPF_K, value_low),
            jump(BPF_JEQ, arg.value_two as u32, 0, FAIL),
        ],
        other => return Err(format!("unknown comparison {other:?}")),
    })
}

fn action(name: &str, errno: Option<u32>) -> Result<u32, String> {
    let errno = errno.unwrap_or(libc::EPERM as u32) & libc::SECCOMP_RET_DATA;
    Ok(match name {
        "SCMP_ACT_ALLOW" => libc::SECCOMP_RET_ALLOW,
        "SCMP_ACT_ERRNO" => libc::SECCOMP_RET_ERRNO | errno,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => libc::SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        "SCMP_ACT_TRACE" => libc::SECCOMP_RET_TRACE | errno,
        other => return Err(format!("unknown action {other:?}")),
    })
}

fn flags(names: &[String]) -> Result<u64, String> {
    names.iter().try_fold(0, |flags, name| {
        Ok(flags
            | match name.as_str() {
                // A single-threaded process has nothing to synchronise.
                "SECCOMP_FILTER_FLAG_TSYNC" => 0,
                "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                other => return Err(format!("unknown flag {other:?}")),
            })
    })
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn ret(verdict: u32) -> sock_filter {
    statement(BPF_RET | BPF_K, verdict)
}

fn jump(condition: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | condition | BPF_K) as u16, jt, jf, k }
}
