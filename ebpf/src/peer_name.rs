//! `getpeername4`, `getpeername6`: a program that asks whom it is connected to is told what it dialled.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use weft_common::{Socket, owner, v4_of};

use crate::maps;
use crate::{read, write};

const ALLOW: i32 = 1;

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    if let Some(dialled) = dialled(&ctx)
        && let Some(ip) = v4_of(dialled.addr_be)
    {
        write!(ctx.sock_addr, user_ip4, ip);
        write!(ctx.sock_addr, user_port, port_be(dialled));
    }
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    if let Some(dialled) = dialled(&ctx) {
        write!(ctx.sock_addr, user_ip6[0], dialled.addr_be[0]);
        write!(ctx.sock_addr, user_ip6[1], dialled.addr_be[1]);
        write!(ctx.sock_addr, user_ip6[2], dialled.addr_be[2]);
        write!(ctx.sock_addr, user_ip6[3], dialled.addr_be[3]);
        write!(ctx.sock_addr, user_port, port_be(dialled));
    }
    ALLOW
}

/// What the program dialled, if its connection was captured. Also true of pods that have left the mesh since.
#[inline(always)]
fn dialled(ctx: &SockAddrContext) -> Option<&'static Socket> {
    let socket = read!(ctx.sock_addr, __bindgen_anon_1.sk);
    if socket.is_null() {
        return None;
    }
    maps::known(socket).filter(|known| known.owner == owner::CAPTURED)
}

#[inline(always)]
fn port_be(dialled: &Socket) -> u32 {
    u32::from((dialled.port as u16).to_be())
}
