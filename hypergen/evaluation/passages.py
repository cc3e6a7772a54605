"""Plain text of our own, on matters that no story is about: what an adapter should not harm."""

from __future__ import annotations

PASSAGES = (
    "Concrete hardens because cement reacts with water, not because it dries. The reaction goes on "
    "for weeks, and a slab that is kept damp for the first days ends up stronger than one that is "
    "left in the sun. Builders therefore cover fresh concrete with wet cloth or plastic. In cold "
    "weather the reaction slows down, and below freezing the water in the mixture turns to ice and "
    "breaks the structure before it has formed.",
    "A lease usually states how much notice each side must give before it ends. The tenant pays a "
    "deposit, which the owner has to return within a fixed time after the keys are handed over, "
    "less the cost of any damage beyond ordinary wear. Both should write down the state of the "
    "rooms on the first day. Without such a record it is hard to show later who caused a scratch "
    "or a broken tile.",
    "Sailors measured speed by throwing a piece of wood over the stern, tied to a line with knots "
    "at even distances. A small sandglass was turned at the same moment, and the number of knots "
    "that ran through the hand before the sand was gone gave the speed of the ship. The unit is "
    "still called a knot, although electronic instruments have long taken the place of the line.",
    "The index of a database is a sorted copy of one column with a pointer to every row. Searching "
    "it takes a few steps where reading the whole table would take thousands. Each index must be "
    "updated whenever a row is written, so that tables with many of them are quick to read and "
    "slow to change. Good design begins with the questions that will be asked most often.",
    "Bread rises because yeast feeds on sugar and gives off gas, which the dough holds in small "
    "bubbles. Kneading joins the proteins of the flour into long, elastic sheets. Too little of it "
    "leaves a flat and crumbly loaf. In a warm kitchen the dough doubles within an hour; in a "
    "refrigerator it needs a whole night, and the slow rise gives more flavour.",
    "The price of copper depends on a small number of large mines and on how much is being built. "
    "When a mine closes for repairs, buyers draw on the stocks in warehouses, and the price of "
    "metal for delivery now climbs above that for delivery next year. Analysts watch this gap, "
    "since it shows a shortage earlier than the official figures do.",
    "Glaciers move. Snow that falls on the upper part is pressed into ice, and the ice flows "
    "downhill under its own weight, a few metres in a year or, on steep ground, several metres in "
    "a day. At the lower end it melts. Where more melts than is added above, the front retreats, "
    "although the ice itself never flows backwards.",
    "A violin is tuned in fifths, from the lowest string to the highest: G, D, A and E. The player "
    "starts with the A, for which the orchestra takes its pitch from the oboe, and compares each "
    "pair of neighbouring strings until the beating between them disappears. New strings stretch "
    "for several days and have to be corrected again and again.",
)
