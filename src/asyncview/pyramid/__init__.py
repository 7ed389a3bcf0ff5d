"""The front for Pyramid: everything that knows the framework.

A request passes `tween` (and, where it starts jobs, `start`), is looked at by `access`
(which job, and may they see it) and answered by `view` and `subviews`; `asking` and
`admission` decide whether it may start one.  A replay comes from `replay`, runs under
`attempt`, and what it answers goes through `results` and `capture` into the database,
from where `stored` serves it.  `config` says all this to Pyramid; `site` is what one
configured application has.
"""
