// SPDX-License-Identifier: GPL-2.0
// A kernel module that breaks a machine in the way it is asked for: insmod broken.ko how=oops
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/irqflags.h>
#include <linux/sched.h>

static char *how = "warning";
module_param(how, charp, 0400);

static noinline int broken_oops(void)
{
	int *nowhere = (int *)(long)(how[0] == 'o' ? 8 : 0);

	return READ_ONCE(*nowhere);
}

static noinline int broken_gpf(void)
{
	return READ_ONCE(*(int *)(0xdead000000000100UL));
}

static noinline void broken_warning(void)
{
	WARN(1, "broken on purpose\n");
}

static noinline void broken_bug(void)
{
	BUG();
}

static noinline void broken_softlockup(void)
{
	preempt_disable();
	for (;;)
		cpu_relax();
}

static noinline void broken_rcu(void)
{
	rcu_read_lock();
	preempt_disable();
	for (;;)
		cpu_relax();
}

static noinline void broken_atomic(void)
{
	preempt_disable();
	msleep(10);
	preempt_enable();
}

static noinline int broken_hung(void *unused)
{
	set_current_state(TASK_UNINTERRUPTIBLE);
	schedule();
	return 0;
}

static int __init broken_init(void)
{
	if (!strcmp(how, "oops"))
		return broken_oops();
	if (!strcmp(how, "gpf"))
		return broken_gpf();
	if (!strcmp(how, "warning"))
		broken_warning();
	if (!strcmp(how, "bug"))
		broken_bug();
	if (!strcmp(how, "softlockup"))
		broken_softlockup();
	if (!strcmp(how, "rcu"))
		broken_rcu();
	if (!strcmp(how, "atomic"))
		broken_atomic();
	if (!strcmp(how, "hung"))
		broken_hung(NULL);
	if (!strcmp(how, "panic"))
		panic("broken on purpose");
	return 0;
}

module_init(broken_init);
MODULE_LICENSE("GPL");
