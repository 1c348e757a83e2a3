/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "job.h"

#include <errno.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

void job_unqueue(struct agent_job *j)
{
	list_remove(&j->of_waiting);
	if (j->queued)
		j->agent->n_queued--;
	j->queued = false;
}

void job_give_slot_back(struct agent_job *j)
{
	if (j->slot >= 0)
		host_slots_give_back(j->agent->slots, j->slot);
	j->slot = -1;
}

/* ---- slots of the host ---- */

static void arm_queue_timer(struct agent *a);

/* Every wait has an end; at home it goes on. */
void agent_job_queue_timeout(void *data)
{
	struct agent *a = data;
	uint64_t now = now_ms();

	list_for_each_safe (e, &a->queued) {
		struct agent_job *j = container_of(e, struct agent_job, of_waiting);
		_cleanup_free_ char *text = NULL;

		if (j->queued_ms + PROTO_TURN_MAX_S * 1000 > now)
			break; /* the others came later */
		text = xasprintf(
			"its host runs at most %u jobs at once and none has made room in %d s; "
			"set " MAX_JOBS_ENV " there if it can run more",
			a->max_jobs, PROTO_TURN_MAX_S);
		job_unqueue(j);
		job_refuse(j, REFUSED_BUSY, text);
	}
	host_slots_waiting(a->slots, a->n_queued);
	arm_queue_timer(a);
}

static void arm_queue_timer(struct agent *a)
{
	uint64_t now = now_ms(), at;

	if (list_empty(&a->queued))
		return;
	at = list_first(&a->queued, struct agent_job, of_waiting)->queued_ms +
	     PROTO_TURN_MAX_S * 1000;
	loop_timer_set(a->queue_timer, at > now ? at - now : 1);
}

/* The client may have a slot for it elsewhere. */
static void tell_queued(struct agent_job *j, bool queued)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	j->queue_sent = queued;
	msg_pair_encode(&b, j->msg.job_id, queued);
	link_send_buf(j->agent->link, MSG_JOB_QUEUED, LINK_PRIO, &b);
}

/* Those who came last: the others were told of before. */
static void tell_new(struct agent *a)
{
	for (struct list *l = a->queued.prev; l != &a->queued; l = l->prev) {
		struct agent_job *j = container_of(l, struct agent_job, of_waiting);

		if (j->queue_sent)
			break;
		tell_queued(j, true);
	}
}

void agent_job_start_queued(struct agent *a)
{
	bool waited = a->n_queued > 0;

	while (!list_empty(&a->queued)) {
		struct agent_job *j = list_first(&a->queued, struct agent_job, of_waiting);
		int slot = a->slots ? host_slots_take(a->slots) : -1;

		if (slot == -EAGAIN)
			break;
		j->slot = slot < 0 ? -1 : slot; /* no guard: none is better than no job */
		if (j->queue_sent)
			tell_queued(j, false);
		job_start_now(j);
	}
	tell_new(a);
	if (a->slots && (waited || a->n_queued))
		host_slots_waiting(a->slots, a->n_queued);
	if (a->n_queued)
		arm_queue_timer(a);
}

/* The mirror is ready for it; its cores may not be. */
static void queue(struct agent_job *j)
{
	struct agent *a = j->agent;

	list_remove(&j->of_waiting);
	j->queued_ms = now_ms();
	j->queued = true;
	list_append(&a->queued, &j->of_waiting);
	a->n_queued++;
	agent_job_start_queued(a);
}

static bool may_start(const struct agent_job *j)
{
	const struct agent *a = j->agent;

	return !j->comparing && job_has_input(j) && a->n_kept_done >= j->wait_kept &&
	       mirror_flushed(a->mirror, j->wait_seq);
}

void agent_job_start_waiting(struct agent *a)
{
	list_for_each_safe (e, &a->waiting) {
		struct agent_job *j = container_of(e, struct agent_job, of_waiting);

		if (may_start(j))
			queue(j);
	}
}

void job_wait(struct agent_job *j)
{
	list_append(&j->agent->waiting, &j->of_waiting);
	if (may_start(j))
		queue(j);
}
