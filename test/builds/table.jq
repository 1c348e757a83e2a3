# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# From concc report --json to a line for each job, in the order in which they came:
#   { milliseconds of its work, the number of the job that it came after (0: of none), which of the
#   programs and directories it is of, 1 where a rule keeps it on the client }
# What came first after a job's end came for it, and so did what followed at once.

def ended: .arrived_us + .ended_us;
def work_us: .user_us + .system_us | select(. > 0);

[.jobs[] | select(.ended_us > 0)] | sort_by(.arrived_us) as $jobs
| [$jobs[] | [.program, .directory]] as $kinds
| ($kinds | unique) as $known
| (reduce range($jobs | length) as $i ([];
	$jobs[$i] as $j
	| . + [if $i > 0 and $j.arrived_us - $jobs[$i - 1].arrived_us < 50000 then .[$i - 1]
	       else ([range($i) | select(($jobs[.] | ended) <= $j.arrived_us)]
		     | if . == [] then 0 else max_by($jobs[.] | ended) + 1 end)
	       end])) as $after
| range($jobs | length) as $i
| $jobs[$i]
| "{\((work_us // (.ended_us - .sent_us)) / 1000 | ceil), \($after[$i]), \($kinds[$i] as $k
	| $known | index([$k])), \(if .worker == "" then 1 else 0 end)},"
