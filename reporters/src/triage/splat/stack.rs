//! Which function is to blame, from the registers and the call trace.

use crate::triage::normal;

/// Reports, traps, locks, waits and copies: what is on every stack and to blame for nothing. A name that ends in `*`
/// stands for all that begin so.
const MACHINERY: &[&str] = &[
    "dump_stack*",
    "show_stack*",
    "show_regs*",
    "dump_backtrace*",
    "__dump_*",
    "unwind_*",
    "arch_stack_walk",
    "panic*",
    "vpanic",
    "nmi_panic",
    "die*",
    "__die*",
    "oops_*",
    "warn_slowpath_*",
    "__warn*",
    "report_bug*",
    "handle_bug",
    "fixup_bug*",
    "do_error_trap",
    "do_trap",
    "do_invalid_op",
    "invalid_op",
    "do_general_protection",
    "general_protection",
    "do_page_fault",
    "__do_page_fault",
    "do_user_addr_fault",
    "do_kern_addr_fault",
    "page_fault*",
    "async_page_fault",
    "no_context",
    "bad_area*",
    "__bad_area*",
    "exc_*",
    "asm_exc_*",
    "error_entry",
    "do_int3",
    "do_double_fault",
    "double_fault",
    "mm_fault_error",
    "spurious_*",
    "do_mem_abort",
    "do_translation_fault",
    "do_bad_area",
    "do_sp_pc_abort",
    "do_undefinstr",
    "do_debug_exception",
    "el1_*",
    "el1h_*",
    "el0_*",
    "el0t_*",
    "__do_kernel_fault",
    "__arm64_sys_*",
    "bug_handler",
    "brk_handler",
    "call_break_hook",
    "arm64_force_sig_fault",
    "die_kernel_fault",
    "kasan_*",
    "__kasan_*",
    "print_report",
    "print_address_description*",
    "__asan_*",
    "__hwasan_*",
    "check_memory_region*",
    "check_region_inline",
    "end_report",
    "ubsan_*",
    "__ubsan_*",
    "val_to_string*",
    "handle_overflow*",
    "kcsan_*",
    "__tsan_*",
    "kfence_*",
    "kmsan_*",
    "__msan_*",
    "refcount_*",
    "__refcount_*",
    "__list_add_valid*",
    "__list_del_entry_valid*",
    "list_del*",
    "usercopy_*",
    "__check_object_size*",
    "__check_heap_object",
    "fortify_*",
    "__fortify_*",
    "debug_print_object",
    "debug_check_no_obj_freed",
    "memcpy*",
    "__memcpy*",
    "memset*",
    "__memset*",
    "memmove*",
    "__memmove*",
    "strlen",
    "strcmp",
    "strnlen",
    "strcpy",
    "copy_user_*",
    "rep_movs*",
    "__rcu_*",
    "rcu_*",
    "print_cpu_stall*",
    "print_other_cpu_stall",
    "check_cpu_stall",
    "sched_show_task",
    "nmi_*",
    "trigger_*",
    "arch_trigger_*",
    "watchdog*",
    "__watchdog*",
    "softlockup_*",
    "check_hung_*",
    "hrtimer_*",
    "__hrtimer_*",
    "tick_*",
    "update_process_times",
    "local_apic_timer_interrupt",
    "smp_apic_timer_interrupt",
    "apic_timer_interrupt",
    "sysvec_*",
    "asm_sysvec_*",
    "__sysvec_*",
    "perf_event_nmi_handler",
    "intel_pmu_*",
    "__perf_event_overflow",
    "perf_event_overflow",
    "do_nmi",
    "default_do_nmi",
    "end_repeat_nmi",
    "nmi",
    "irq_exit*",
    "__irq_exit*",
    "__do_softirq",
    "handle_irq*",
    "schedule*",
    "__schedule",
    "preempt_schedule*",
    "__cond_resched*",
    "_cond_resched",
    "io_schedule*",
    "bit_wait*",
    "__wait_on_bit*",
    "out_of_line_wait_on_bit*",
    "wait_for_completion*",
    "__wait_for_common",
    "wait_for_common",
    "context_switch",
    "__switch_to*",
    "lock_acquire*",
    "__lock_acquire*",
    "lock_release*",
    "validate_chain",
    "check_prev*",
    "check_noncircular",
    "check_deadlock",
    "print_circular_bug*",
    "print_deadlock_bug",
    "print_usage_bug*",
    "print_unlock_imbalance_bug*",
    "lockdep_*",
    "mark_lock*",
    "valid_state",
    "_raw_spin_*",
    "__raw_spin_*",
    "_raw_read_*",
    "_raw_write_*",
    "do_raw_spin_*",
    "queued_spin_*",
    "native_queued_spin_*",
    "__pv_queued_*",
    "pv_*",
    "spin_dump",
    "spin_bug",
    "ticket_spin_*",
    "mutex_lock*",
    "__mutex_lock*",
    "mutex_unlock*",
    "down_*",
    "up_*",
    "__down_*",
    "rwsem_*",
    "__might_*",
    "___might_*",
    "might_fault*",
    "__schedule_bug",
    "check_preemption_disabled",
    "native_*",
    "default_idle*",
    "arch_cpu_idle",
    "cpuidle_*",
    "do_idle",
    "cpu_startup_entry",
    "kvm_wait",
    "smp_call_function*",
    "csd_lock_*",
    "on_each_cpu*",
    "dump_header",
    "oom_kill_process*",
    "out_of_memory*",
    "bad_page*",
    "free_page_is_bad*",
    "print_bad_pte",
    "__stack_chk_fail",
    "ret_from_*",
    "sysrq_handle_crash*",
    "_printk",
    "printk*",
    "vprintk*",
    "console_unlock",
    "__bug_*",
    "do_syscall_64",
    "do_syscall_x64",
    "entry_SYSCALL*",
    "system_call_fastpath",
    "kthread",
    "worker_thread",
    "process_one_work",
    "invoke_syscall*",
    "el0_svc*",
];

/// What was seen of a stack.
#[derive(Debug, Clone, Default)]
pub(super) struct Stack {
    /// Named by the registers or by the first line.
    pointed: Option<String>,
    /// The first frame of the trace that is to blame.
    traced: Option<String>,
    /// Whether frames were seen at all.
    frames: bool,
    traces: bool,
}

impl Stack {
    /// Takes a message of the splat; whether it belongs to a stack or to registers.
    pub(super) fn take(&mut self, text: &str) -> bool {
        let text = text.trim_start();
        if let Some(symbol) = pointer(text) {
            if self.pointed.is_none() && !is_machinery(symbol) {
                self.pointed = Some(symbol.to_owned());
            }
            return true;
        }
        if text.starts_with("Call Trace:")
            || text.starts_with("Call trace:")
            || text.starts_with("Backtrace:")
        {
            self.traces = true;
            return true;
        }
        if !self.traces {
            return false;
        }
        match frame(text) {
            Some((symbol, Reliable::Yes)) => {
                self.frames = true;
                if self.traced.is_none() && !is_machinery(symbol) {
                    self.traced = Some(symbol.to_owned());
                }
                true
            }
            Some(_) => true,
            None => text.starts_with('<') || text.starts_with("RSP:") || text.starts_with("R1"),
        }
    }

    /// Whether frames were seen, so that the end may come.
    pub(super) fn is_found(&self) -> bool {
        self.frames
    }

    /// The function to blame.
    pub(super) fn function(&self) -> Option<&str> {
        self.pointed.as_deref().or(self.traced.as_deref())
    }
}

/// Whether the unwinder is sure of a frame (`? name` is a guess).
#[derive(Debug, PartialEq, Eq)]
enum Reliable {
    Yes,
    No,
}

/// The function that the instruction pointer is in: `RIP: 0010:name+0x…`, `pc : name+0x…`, `PC is at name+0x…`, `IP: …`,
/// and `WARNING: … at file:line name+0x…`.
fn pointer(text: &str) -> Option<&str> {
    let rest = if let Some(rest) = text.strip_prefix("RIP: ") {
        // `RIP: 0033:0x7f…` is the program's own.
        if rest.starts_with("0033:") {
            return None;
        }
        rest.split_once(':').map_or(rest, |(_, rest)| rest)
    } else if let Some(rest) = text.strip_prefix("WARNING: ") {
        rest.strip_prefix("at ").or_else(|| Some(rest.split_once(" at ")?.1))?
    } else if text.starts_with("Modules linked in") {
        return None;
    } else {
        ["pc : ", "PC is at ", "IP: ", "NIP "].iter().find_map(|start| text.strip_prefix(start))?
    };
    symbol(rest)
}

/// A frame of a trace: `name+0x1/0x2 [module]`, `[<ffffffff81234567>] name+0x1/0x2`, `? name+0x…`.
fn frame(text: &str) -> Option<(&str, Reliable)> {
    let mut rest = text.trim_start();
    let mut reliable = Reliable::Yes;
    for _ in 0..3 {
        if let Some(after) = rest.strip_prefix("[<") {
            rest = after.split_once(">]")?.1.trim_start();
        } else if let Some(after) = rest.strip_prefix("? ") {
            rest = after.trim_start();
            reliable = Reliable::No;
        }
    }
    let word = rest.split([' ', '\t']).next()?;
    if !word.contains("+0x") {
        return None;
    }
    Some((symbol(word)?, reliable))
}

/// The first `name+0x…` in a text, plain.
pub(super) fn symbol(text: &str) -> Option<&str> {
    let at = text.find("+0x")?;
    let name = text[..at].rsplit([' ', '\t', ':', ']', '(']).next()?;
    let name = normal::function(name);
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '$');
    (!name.is_empty() && name.chars().all(fits) && !name.starts_with("0x")).then_some(name)
}

/// Whether a function only reports, locks, waits or copies.
pub(super) fn is_machinery(name: &str) -> bool {
    MACHINERY.iter().any(|known| match known.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *known,
    })
}
