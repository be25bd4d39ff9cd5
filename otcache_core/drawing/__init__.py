"""Everything that people look at: plots, pictures, the page of the demo, and the data of the strips on the nodes.

Read `style` first, then `charts.schedule_strips`. `strip` has no pixels: web/js/otcache draws what it returns on the nodes.
"""
