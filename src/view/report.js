// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// Draws the jobs of one build.  Only what is in view is drawn, and of bars that would fall into the
// same pixel the first, so that tens of thousands scroll well.  What the data says goes to
// textContent and canvases only, never into markup.
"use strict";
(() => {
	const data = JSON.parse(document.getElementById("data").textContent);
	const byId = (id) => document.getElementById(id);
	const ROW = 15, GAP = 2, GROUP = 22, AXIS = 20, LEFT = 8;

	// ---- jobs ----

	const jobs = data.jobs.map((row, index) => {
		const j = { index };

		data.columns.forEach((name, i) => { j[name] = row[i]; });
		for (const name of ["program", "subject", "command", "directory", "rule", "why"])
			j[name] = data.strings[j[name]];
		j.here = data.places[j.place].name === "";
		j.from = !j.here && j.slot && j.slot < j.sent ? j.slot : j.sent || j.arrived;
		j.inSlot = !j.here || j.rule === "local-slot";
		j.what = j.subject || j.command;
		return j;
	});

	const placeName = (p) => p.name || "this machine";

	function outcome(j) {
		if (j.rule === "cancelled") return "cancelled";
		if (j.end === 2 || (j.end === 1 && j.code)) return "failed";
		if (j.here) return j.tries ? "here, after a worker" : "here";
		return j.tries > 1 ? "second try" : "on a worker";
	}

	// Lanes from top to bottom: a head for each place, then its slots.
	const lanes = [];
	let height = AXIS;

	data.places.forEach((p, i) => {
		const first = lanes.length;

		p.y = height;
		height += GROUP;
		for (let k = 0; k < p.lanes; k++) {
			lanes.push({ y: height, jobs: [] });
			height += ROW;
		}
		p.first = first;
		height += 4;
	});
	for (const j of jobs)
		if (j.lane >= 0) lanes[data.places[j.place].first + j.lane].jobs.push(j);
	for (const l of lanes) l.jobs.sort((a, b) => a.from - b.from || a.done - b.done);
	const inOrder = jobs.filter((j) => j.lane >= 0).sort((a, b) => a.from - b.from || a.index - b.index);
	inOrder.forEach((j, i) => { j.order = i; });

	// ---- colours ----

	const LIGHT = ["#4c78a8", "#e0812b", "#4f9d58", "#b75bb0", "#c9a227", "#2a9d9a", "#d1495b", "#7a6a58"];
	const DARK = ["#6f9fd0", "#f09c50", "#6fbf78", "#cf82c8", "#dcb94a", "#4fc0bc", "#e8707f", "#a8967f"];
	const dark = matchMedia("(prefers-color-scheme: dark)");
	const outcomes = ["on a worker", "here", "second try", "here, after a worker", "cancelled", "failed"];
	const kinds = {
		program: (j) => j.program || "?",
		place: (j) => placeName(data.places[j.place]),
		outcome,
	};
	let css = {}, colours = new Map(), kind = "program";

	// The ones with most time have colours of their own, in a fixed order; all others share one.
	function rankColours() {
		const time = new Map(), palette = dark.matches ? DARK : LIGHT;

		for (const j of inOrder) time.set(kinds[kind](j), (time.get(kinds[kind](j)) || 0) + j.done - j.from);
		let names = [...time.keys()].sort((a, b) => time.get(b) - time.get(a));
		if (kind === "place") names = data.places.map(placeName);
		if (kind === "outcome") names = outcomes.filter((o) => time.has(o));
		colours = new Map();
		names.forEach((name, i) => {
			let c = i < palette.length ? palette[i] : css.here;

			if (kind === "outcome") c = [palette[0], css.here, palette[4], palette[1], palette[7], css.mark][outcomes.indexOf(name)];
			if (kind === "place" && name === "this machine") c = css.here;
			colours.set(name, c);
		});
		for (const j of jobs) j.colour = colours.get(kinds[kind](j));
		showLegend(names);
	}

	function showLegend(names) {
		const palette = names.filter((n) => colours.get(n) !== css.here || kind !== "program");
		const items = palette.map((name) => legendItem(name, colours.get(name)));

		if (palette.length < names.length)
			items.push(legendItem(`${names.length - palette.length} more`, css.here));
		byId("legend").replaceChildren(...items);
	}

	function legendItem(name, colour) {
		const li = document.createElement("li"), i = document.createElement("i");

		i.style.background = colour;
		li.append(i, name);
		return li;
	}

	function readStyle() {
		const s = getComputedStyle(document.documentElement);

		for (const n of ["ground", "panel", "ink", "soft", "line", "accent", "shade", "here", "busy", "offered", "slots", "mark"])
			css[n] = s.getPropertyValue("--" + n).trim();
		rankColours();
	}

	// ---- text ----

	function span(us) {
		if (us < 1000) return `${us} µs`;
		if (us < 995000) return `${(us / 1000).toFixed(us < 10000 ? 1 : 0)} ms`;
		if (us < 60e6) return `${(us / 1e6).toFixed(2)} s`;
		return `${Math.floor(us / 60e6)} min ${Math.round((us % 60e6) / 1e6)} s`;
	}

	function size(n) {
		const units = ["B", "KB", "MB", "GB"];
		let i = 0;

		for (; n >= 1024 && i < 3; i++) n /= 1024;
		return `${n < 10 && i ? n.toFixed(1) : Math.round(n)} ${units[i]}`;
	}

	function facts(j) {
		const list = [["program", j.program], ["where", placeName(data.places[j.place]) + (j.lane >= 0 ? `, slot ${j.lane + 1}` : "")]];
		const add = (name, value) => list.push([name, value]);
		const ended = j.ended || j.done;

		add("took", `${span(j.done - j.from)}, from ${span(j.from)} to ${span(j.done)}`);
		if (!j.here && j.slot) add("waited for a slot", span(j.slot - j.arrived));
		if (!j.here && j.sent > j.from) add("until it was sent", span(j.sent - j.from));
		if (j.said) add("first words after", span(j.said - j.sent));
		if (!j.here && j.done > ended) add("results in place after", span(j.done - ended));
		if (!j.here) {
			add("CPU", `${span(j.user + j.system)} (user ${span(j.user)}, system ${span(j.system)}) in ${span(j.wall)}`);
			add("memory", size(j.peak_kb * 1024));
			add("bytes", `${size(j.back)} brought back; ${size(j.fetched)} in ${j.files} files fetched meanwhile`);
		}
		if (j.tries > 1 || (j.here && j.tries)) add("workers tried", String(j.tries));
		if (j.rule) add(j.here ? "here because" : "rule", j.why ? `${j.rule}: ${j.why}` : j.rule);
		add("ended", j.end === 2 ? `by signal ${j.code}` : j.end === 1 ? `with ${j.code}` : outcome(j) === "cancelled" ? "cancelled" : "not known how");
		add("directory", j.directory);
		return list;
	}

	// ---- what is told of a job ----

	const tip = byId("tip");
	let hover = null, kept = null, current = null; // current: the last that keys led to

	function fillTip(j) {
		const what = document.createElement("b"), command = document.createElement("code");
		const dl = document.createElement("dl");

		what.textContent = j.what;
		command.textContent = j.command;
		for (const [name, value] of facts(j)) {
			const dt = document.createElement("dt"), dd = document.createElement("dd");

			dt.textContent = name;
			dd.textContent = value;
			dl.append(dt, dd);
		}
		tip.replaceChildren(what, command, dl);
	}

	function placeTip(x, y) {
		const w = tip.offsetWidth, h = tip.offsetHeight;
		const left = x + 16 + w > innerWidth ? x - 16 - w : x + 16;
		const top = y + 16 + h > innerHeight ? y - 12 - h : y + 16;

		tip.style.left = `${Math.max(4, left)}px`;
		tip.style.top = `${Math.max(4, top)}px`;
	}

	function tell(j, x, y) {
		hover = j;
		tip.hidden = !j;
		tip.classList.toggle("kept", j !== null && j === kept);
		if (j) {
			fillTip(j);
			placeTip(x, y);
		}
		draw();
	}

	// Where it was told, there is something else now.
	function letGo() {
		if (!hover || kept) return;
		hover = null;
		tip.hidden = true;
	}

	function tellByKey(j) {
		current = j;
		show(j);
		const r = canvas.getBoundingClientRect(), b = box(j);

		tell(j, r.left + b.x + Math.min(b.w, 40), r.top + b.y + ROW);
		byId("spoken").textContent = [j.what, ...facts(j).map((f) => f.join(" "))].join(", ");
	}

	// ---- the view ----

	const canvas = byId("lanes"), scroller = byId("scroller"), chart = byId("width");
	const WALL = Math.max(data.wall, 1);
	let from = 0, to = WALL, wide = 1, high = 1, due = false;

	const toX = (t) => LEFT + ((t - from) / (to - from)) * (wide - 2 * LEFT);
	const toTime = (x) => from + ((x - LEFT) / (wide - 2 * LEFT)) * (to - from);

	function look(a, b) {
		const width = Math.min(Math.max(b - a, Math.min(WALL, 200)), WALL);

		from = Math.min(Math.max((a + b - width) / 2, 0), WALL - width);
		to = from + width;
		letGo();
		draw();
	}

	function zoom(factor, at = (from + to) / 2) {
		const width = Math.min(WALL, (to - from) * factor), share = (at - from) / (to - from);

		look(at - share * width, at + (1 - share) * width);
	}

	const move = (share) => look(from + share * (to - from), to + share * (to - from));

	function laneOf(j) {
		return lanes[data.places[j.place].first + j.lane];
	}

	// Where a job's bar is on the canvas, in CSS pixels.
	function box(j) {
		const x = toX(j.from);

		return { x, y: laneOf(j).y - scroller.scrollTop, w: Math.max(toX(j.done) - x, 1), h: ROW - GAP };
	}

	function show(j) {
		const y = laneOf(j).y, width = to - from;

		if (j.from < from || j.done > to) look((j.from + j.done - width) / 2, (j.from + j.done + width) / 2);
		if (y < scroller.scrollTop + AXIS || y + ROW > scroller.scrollTop + high) scroller.scrollTop = y - high / 2;
	}

	// The first job of a lane that ends after t.
	function firstAfter(list, t) {
		let a = 0, b = list.length;

		while (a < b) {
			const m = (a + b) >> 1;

			if (list[m].done < t) a = m + 1;
			else b = m;
		}
		return a;
	}

	function jobAt(x, y) {
		const at = y + scroller.scrollTop, slack = (to - from) / wide * 2;

		if (y < AXIS) return null;
		const l = lanes.find((lane) => at >= lane.y && at < lane.y + ROW);
		if (!l) return null;
		const t = toTime(x), list = l.jobs;
		let best = null;

		for (let i = firstAfter(list, t - slack); i < list.length && list[i].from <= t + slack; i++) {
			const off = Math.max(list[i].from - t, t - list[i].done, 0);

			if (!best || off < best.off) best = { off, j: list[i] };
		}
		return best && best.j;
	}

	// ---- finding ----

	let wanted = "";

	function find() {
		wanted = byId("find").value.trim().toLowerCase();
		let n = 0;

		for (const j of jobs) {
			j.found = !wanted || [j.subject, j.command, j.program, j.rule, j.why, placeName(data.places[j.place])]
				.some((t) => t.toLowerCase().includes(wanted));
			n += j.found;
		}
		byId("found").textContent = wanted ? `${n} of ${jobs.length}` : "";
		draw();
	}

	// ---- drawing ----

	function fit(c, cssHigh) {
		const ratio = devicePixelRatio || 1, w = c.clientWidth;

		if (c.width !== Math.round(w * ratio) || c.height !== Math.round(cssHigh * ratio)) {
			c.width = Math.round(w * ratio);
			c.height = Math.round(cssHigh * ratio);
			c.style.height = `${cssHigh}px`;
		}
		const g = c.getContext("2d");

		g.setTransform(ratio, 0, 0, ratio, 0, 0);
		g.clearRect(0, 0, w, cssHigh);
		g.font = '11px system-ui, "DejaVu Sans", sans-serif';
		g.textBaseline = "middle";
		return g;
	}

	function step(width) {
		for (let s = 100; ; s *= 10)
			for (const k of [1, 2, 5])
				if (s * k >= width) return s * k;
	}

	function tickText(t, s) {
		if (s < 1000) return `${(t / 1000).toFixed(1)} ms`;
		if (s < 1e6) return `${(t / 1e6).toFixed(s < 1e4 ? 3 : s < 1e5 ? 2 : 1)} s`;
		return t < 60e6 ? `${t / 1e6} s` : `${Math.floor(t / 60e6)}:${String(Math.round((t % 60e6) / 1e6)).padStart(2, "0")}`;
	}

	function drawGrid(g, h, text) {
		const s = step(((to - from) / wide) * 90);

		g.strokeStyle = css.line;
		g.fillStyle = css.soft;
		g.lineWidth = 1;
		g.textAlign = "center";
		for (let t = Math.ceil(from / s) * s; t <= to; t += s) {
			const x = Math.round(toX(t)) + 0.5;

			g.beginPath();
			g.moveTo(x, text ? AXIS - 4 : 0);
			g.lineTo(x, h);
			g.stroke();
			if (text) g.fillText(tickText(t, s), Math.min(Math.max(x, 24), wide - 24), 9);
		}
		g.textAlign = "left";
	}

	function drawTail(g, h) {
		const a = toX(data.tail), b = toX(WALL);

		if (data.tail >= WALL || b < 0 || a > wide) return;
		g.fillStyle = css.shade;
		g.fillRect(a, 0, b - a, h);
	}

	function drawBar(g, j, y) {
		const x = toX(j.from), w = Math.max(toX(j.done) - x, 1), h = ROW - GAP;
		const pale = wanted && !j.found ? 0.15 : 1;

		g.fillStyle = j.colour;
		if (w < 4 || j.here) {
			g.globalAlpha = pale;
			g.fillRect(x, y, w, h);
		} else {
			const sent = toX(j.sent), ended = toX(j.ended || j.done);

			g.globalAlpha = 0.4 * pale;
			g.fillRect(x, y, w, h);
			g.globalAlpha = pale;
			g.fillRect(sent, y, Math.max(ended - sent, 1), h);
		}
		if (outcome(j) === "failed") {
			g.fillStyle = css.mark;
			g.fillRect(x, y + h - 3, w, 3);
		}
		if (w > 46) drawName(g, j, x, y, w, h);
		g.globalAlpha = 1;
	}

	function drawName(g, j, x, y, w, h) {
		const a = Math.max(x, 0), room = x + w - a - 8, text = j.what.slice(j.what.lastIndexOf("/") + 1);

		if (room < 30) return;
		g.save();
		g.beginPath();
		g.rect(a, y, room + 6, h);
		g.clip();
		g.fillStyle = dark.matches ? "#101214" : "#ffffff";
		if (j.colour === css.here && !dark.matches) g.fillStyle = "#1d2329";
		g.fillText(text, a + 4, y + h / 2 + 0.5);
		g.restore();
	}

	// Returns how many jobs are in what was drawn, be it as the part of a bar.
	function drawLane(g, l) {
		const y = l.y - scroller.scrollTop;
		let last = -1, n = 0;

		for (let i = firstAfter(l.jobs, from); i < l.jobs.length && l.jobs[i].from <= to; i++, n++) {
			const j = l.jobs[i], end = toX(j.done);

			if (end - last < 0.5 && outcome(j) !== "failed" && !(wanted && j.found)) continue;
			drawBar(g, j, y);
			last = end;
		}
		return n;
	}

	function drawPlace(g, p) {
		const y = p.y - scroller.scrollTop;

		g.fillStyle = css.ink;
		g.font = '600 12px system-ui, "DejaVu Sans", sans-serif';
		g.fillText(placeName(p), LEFT, y + 13);
		const x = LEFT + g.measureText(placeName(p)).width + 8;
		g.font = '11px system-ui, "DejaVu Sans", sans-serif';
		g.fillStyle = css.soft;
		g.fillText(p.slots ? `${p.lanes} of ${p.slots} slots used` : `${p.lanes} at once`, x, y + 13);
	}

	function drawFrame(g, j, colour) {
		const b = box(j);

		g.strokeStyle = colour;
		g.lineWidth = 2;
		g.strokeRect(b.x - 1, b.y - 1, b.w + 2, b.h + 2);
		if (j.here || j.from <= j.arrived) return;
		// What it waited for its slot.
		g.setLineDash([3, 3]);
		g.beginPath();
		g.moveTo(toX(j.arrived), b.y + b.h / 2);
		g.lineTo(b.x - 1, b.y + b.h / 2);
		g.stroke();
		g.setLineDash([]);
	}

	function drawLanes() {
		const g = fit(canvas, high), top = scroller.scrollTop;
		let n = 0;

		drawTail(g, high);
		drawGrid(g, high, false);
		for (const l of lanes)
			if (l.y + ROW > top + AXIS && l.y < top + high) n += drawLane(g, l);
		for (const p of data.places)
			if (p.y + GROUP > top && p.y < top + high) drawPlace(g, p);
		if (kept) drawFrame(g, kept, css.accent);
		if (hover && hover !== kept) drawFrame(g, hover, css.ink);
		g.fillStyle = css.panel;
		g.fillRect(0, 0, wide, AXIS - 4);
		drawGrid(g, AXIS, true);
		canvas.dataset.drawn = n;
	}

	// ---- how many at once ----

	function steps(list) {
		const all = [];
		let n = 0;

		for (const [a, b] of list) all.push([a, 1], [b, -1]);
		all.sort((x, y) => x[0] - y[0] || x[1] - y[1]);
		return all.map(([t, by]) => [t, (n += by)]);
	}

	const offered = steps(jobs.map((j) => [j.arrived, j.done]));
	const busy = steps(inOrder.filter((j) => j.inSlot).map((j) => [j.from, j.done]));
	const running = steps(inOrder.map((j) => [j.from, j.done]));
	const offeredMost = offered.reduce((m, s) => Math.max(m, s[1]), 1);
	const runningMost = running.reduce((m, s) => Math.max(m, s[1]), 1);
	// What was offered beyond all slots would leave no room for what ran.
	const most = Math.max(runningMost, data.slots, Math.min(offeredMost, 2.5 * Math.max(runningMost, data.slots)));

	// The highest value of each pixel: none of the peaks is lost.
	function outline(list, h) {
		const tops = new Float64Array(Math.ceil(wide) + 1);
		let i = 0, now = 0;

		for (let x = 0; x <= wide; x++) {
			let top = now;

			for (; i < list.length && toX(list[i][0]) <= x; i++) {
				now = list[i][1];
				top = x === 0 ? now : Math.max(top, now);
			}
			tops[x] = h - 4 - (Math.min(top, most) / most) * (h - 18);
		}
		return tops;
	}

	function trace(g, tops) {
		g.beginPath();
		g.moveTo(0, tops[0]);
		tops.forEach((y, x) => { g.lineTo(x, y); });
	}

	function fillArea(g, list, h, colour) {
		trace(g, outline(list, h));
		g.lineTo(wide, h - 4);
		g.lineTo(0, h - 4);
		g.fillStyle = colour;
		g.fill();
	}

	function drawChart() {
		const h = 110, g = fit(chart, h);

		drawTail(g, h);
		drawGrid(g, h, false);
		fillArea(g, running, h, css.here);
		fillArea(g, busy, h, css.busy);
		trace(g, outline(offered, h));
		g.strokeStyle = css.offered;
		g.lineWidth = 1.5;
		g.stroke();
		g.fillStyle = css.soft;
		if (data.slots) {
			const y = h - 4 - (data.slots / most) * (h - 18);

			g.setLineDash([6, 4]);
			g.strokeStyle = css.slots;
			g.beginPath();
			g.moveTo(0, y);
			g.lineTo(wide, y);
			g.stroke();
			g.setLineDash([]);
			g.fillText(`${data.slots} slots`, LEFT, y - 7);
		}
		g.textAlign = "right";
		g.fillText(`${offeredMost} offered at most`, wide - LEFT, 7);
		g.textAlign = "left";
	}

	function draw() {
		if (due) return;
		due = true;
		requestAnimationFrame(() => {
			due = false;
			wide = canvas.clientWidth;
			drawChart();
			drawLanes();
		});
	}

	function layOut() {
		high = Math.max(80, Math.min(height, Math.round(innerHeight * 0.65)));
		byId("spacer").style.height = `${Math.max(0, height - high)}px`;
		scroller.style.height = `${high}px`;
		draw();
	}

	// ---- hands ----

	let drag = null;

	function local(e) {
		const r = canvas.getBoundingClientRect();

		return [e.clientX - r.left, e.clientY - r.top];
	}

	canvas.addEventListener("pointermove", (e) => {
		if (drag) {
			const by = ((drag.x - e.clientX) / (wide - 2 * LEFT)) * (drag.to - drag.from);

			drag.moved = drag.moved || Math.abs(drag.x - e.clientX) > 3;
			if (drag.moved) look(drag.from + by, drag.to + by);
			return;
		}
		if (kept) return;
		tell(jobAt(...local(e)), e.clientX, e.clientY);
	});
	canvas.addEventListener("pointerleave", () => { if (!kept) tell(null); });
	canvas.addEventListener("pointerdown", (e) => {
		if (e.button) return;
		drag = { x: e.clientX, from, to, moved: false };
		canvas.setPointerCapture(e.pointerId);
		canvas.classList.add("dragging");
	});
	canvas.addEventListener("pointerup", (e) => {
		const was = drag;

		drag = null;
		canvas.classList.remove("dragging");
		if (!was || was.moved) return;
		kept = jobAt(...local(e));
		tell(kept, e.clientX, e.clientY);
	});
	canvas.addEventListener("pointercancel", () => { drag = null; canvas.classList.remove("dragging"); });
	canvas.addEventListener("dblclick", (e) => zoom(0.4, toTime(local(e)[0])));
	canvas.addEventListener("wheel", (e) => {
		if (e.ctrlKey || e.metaKey) {
			e.preventDefault();
			zoom(Math.exp(e.deltaY * 0.002), toTime(local(e)[0]));
		} else if (Math.abs(e.deltaX) > Math.abs(e.deltaY) || e.shiftKey) {
			e.preventDefault();
			move((e.deltaX || e.deltaY) / wide);
		}
	}, { passive: false });

	function neighbour(by) {
		const now = hover || kept || current;
		const first = inOrder.find((j) => j.done >= from) || inOrder[0];
		const next = now ? inOrder[now.order + by] : first;

		if (!next) return;
		if (kept) kept = next;
		tellByKey(next);
	}

	const keys = {
		ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2),
		"+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1 / 0.6),
		0: () => look(0, WALL), n: () => neighbour(1), p: () => neighbour(-1),
		Enter: () => { kept = hover; if (kept) tellByKey(kept); },
	};

	canvas.addEventListener("keydown", (e) => {
		if (!keys[e.key] || e.ctrlKey || e.metaKey || e.altKey) return;
		e.preventDefault();
		keys[e.key]();
	});
	document.addEventListener("keydown", (e) => {
		if (e.key !== "Escape") return;
		kept = null;
		tell(null);
	});
	canvas.addEventListener("blur", () => { if (!kept) tell(null); });

	byId("earlier").addEventListener("click", () => move(-0.4));
	byId("later").addEventListener("click", () => move(0.4));
	byId("closer").addEventListener("click", () => zoom(0.5));
	byId("farther").addEventListener("click", () => zoom(2));
	byId("all").addEventListener("click", () => look(0, WALL));
	byId("find").addEventListener("input", find);
	byId("colour").addEventListener("change", (e) => {
		kind = e.target.value;
		rankColours();
		draw();
	});
	scroller.addEventListener("scroll", draw);
	addEventListener("resize", layOut);
	dark.addEventListener("change", () => { readStyle(); draw(); });

	// Names in the tables lead to their bars.
	for (const cell of document.querySelectorAll("td[data-job]")) {
		const j = jobs[Number(cell.dataset.job)], a = document.createElement("a");

		if (j.lane < 0) continue;
		a.href = "#h-time";
		a.textContent = cell.textContent;
		a.addEventListener("click", (e) => {
			e.preventDefault();
			scroller.scrollIntoView({ block: "center" });
			const width = Math.min(WALL, Math.max((j.done - j.from) * 4, WALL / 50));

			look((j.from + j.done - width) / 2, (j.from + j.done + width) / 2);
			kept = j;
			canvas.focus({ preventScroll: true });
			tellByKey(j);
		});
		cell.replaceChildren(a);
	}

	for (const e of document.querySelectorAll(".needs-script")) e.hidden = false;
	for (const j of jobs) j.found = true;
	readStyle();
	layOut();
	// For whoever drives this page by a program.
	window.conccReport = { jobs: inOrder.length, box: (i) => box(jobs[i]), look, show: (i) => show(jobs[i]) };
})();
