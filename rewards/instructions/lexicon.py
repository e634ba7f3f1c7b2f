"""Closed lists of English words that families count, and facts that some ask for."""

from __future__ import annotations


def _listed(words: str) -> tuple[str, ...]:
    """The words of a list that is written as running text."""
    return tuple(words.split())


CONJUNCTIONS = frozenset(_listed("""for and nor but or yet so"""))

PRONOUNS = frozenset(
    _listed(
        """i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers
    herself it its itself they them their theirs themselves themself this that these those who whom whose which what
    whoever whomever whatever whichever anybody anyone anything everybody everyone everything nobody nothing
    somebody someone something one none each either neither both all some any many few several another other others
    such"""
    )
)

STOP_WORDS = frozenset(
    _listed(
        """a an the and but if or because as until while of at by for with about against between into through during before
    after above below to from up down in out on off over under again further then once here there when where why how
    all any both each few more most other some such no nor not only own same so than too very can will just should
    now i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers
    herself it its itself they them their theirs themselves what which who whom this that these those am is are was
    were be been being have has had having do does did doing would could don't didn't doesn't isn't aren't wasn't
    weren't hasn't haven't hadn't won't wouldn't shouldn't couldn't can't it's that's you're you've you'll i'm i've
    i'll we're we've they're they've he's she's"""
    )
)

PERSON_NAMES = _listed(
    """Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander Amelia Benjamin
    Harper Leo Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel Ella Jacob Scarlett Nathan Victoria
    Elijah Layla Nicholas Audrey David Hannah Christopher Penelope Thomas Nora Andrew Aria Joseph Claire Ryan Stella
    Jonathan"""
)

# Words of titles that style guides leave small: articles, conjunctions, short prepositions.
MINOR_WORDS = frozenset(
    _listed(
        """a an the and but or nor for so yet as at by in of off on per to up via if from into onto over with than vs v
    it's"""
    )
)

# The base forms that sentences begin with, beside auxiliaries; forms in -ing and -ed are recognised by their endings.
VERBS = frozenset(
    _listed(
        """be am is are was were been being do does did done have has had can could will would shall should may might must
    let accept accomplish achieve acknowledge act adapt add address adjust admit adopt advance advise agree aim
    allow analyze announce answer anticipate appear apply appreciate approach approve argue arrange arrive ask
    assemble assert assess assign assist assume attach attempt attend avoid balance base bear beat become begin
    believe belong bend bet bind bite blend blow boil book boost borrow bounce break breathe bring build burn buy
    calculate call capture care carry cast catch cause celebrate challenge change charge check choose claim classify
    clean clear click climb close collect combine come communicate compare complete compose compute concentrate
    conclude conduct confirm connect consider construct consult contain continue contrast contribute control convert
    convince cook copy count cover craft create cross cultivate cut dance deal decide declare decorate decrease
    define deliver demonstrate deny depend derive describe deserve design destroy determine develop differentiate
    dig discover discuss display distribute divide dive double draft draw dream dress drink drive drop earn eat edit
    eliminate embrace employ enable encourage end engage enjoy ensure enter envision escape establish estimate
    evaluate examine exist expand expect experience explain explore express extend face fail fall feel fight figure
    fill find finish fit fix flip fly focus fold follow force forget forgive form foster gain gather generate get
    give go grab grant grasp greet grow guess guide handle hang happen harness hear heat help hide highlight hire
    hit hold hope identify ignore illustrate imagine implement imply improve include increase indicate inspire
    install integrate introduce invent invest investigate invite involve join journey judge jump justify keep kick
    know launch lay lead lean learn leave lend leverage lie lift limit link list listen live load look lose love
    lower maintain make manage mark master match maximize mean measure meet mention minimize mix model monitor mount
    move multiply name need negotiate note notice obtain offer open operate optimize order organize outline own pack
    paint park participate pass pay perform permit pick picture place plan plant play please point ponder pour
    practice praise predict prefer prepare present press prevent print prioritize proceed process produce promote
    propose protect prove provide publish pull purchase push put quote raise reach read realize recall receive
    recognize recommend record reduce refer reflect refuse regard reject relate relax release rely remain remember
    remove rename repeat replace reply report represent request require research resist resolve respect respond rest
    return reveal review rewrite ride rise roll run sail save say scan schedule score search seek seem select sell
    send separate serve set settle shake shape share shift shine show simplify sing sit sketch sleep slice slide
    smell smile soar solve sort speak specify spend spin split spread stand start state stay step stick stir stop
    store strengthen strive structure study submit substitute subtract succeed suggest summarize supply support
    suppose surround swim switch take talk target taste teach tell tend test thank think throw tie touch track trade
    train transform translate travel treat trust try turn understand unite unleash unlock unveil update upgrade use
    utilize value verify view visit visualize wait wake walk want warm wash watch wear welcome win wish witness
    wonder work worry wrap write went came saw said took made gave found knew thought began kept left felt stood
    became ran wrote sat heard told"""
    )
)
NOT_VERBS = frozenset(
    _listed(
        """thing nothing something anything everything king ring spring string wing evening morning ceiling during
    according regarding concerning including red bed hundred indeed need seed speed weed sacred naked wicked"""
    )
)

# From north to south; Kyiv may stand or be missing, since IFBench's own list leaves it out.
CAPITALS = (
    *("reykjavik", "helsinki", "oslo", "tallinn", "stockholm", "riga", "moscow", "copenhagen", "vilnius", "minsk", "dublin"),
    *("berlin", "amsterdam", "warsaw", "london", "brussels", "kyiv", "prague", "luxembourg", "paris", "vienna", "bratislava"),
    *("budapest", "vaduz", "chisinau", "bern", "ljubljana", "zagreb"),
)
CAPITAL_ALIASES = {"kiev": "kyiv", "luxembourg city": "luxembourg", "berne": "bern"}

# Countries of Africa; names of one country stand together.
AFRICA = tuple(
    frozenset(name.strip() for name in names.split("/"))
    for names in """algeria, angola, benin, botswana, burkina faso, burundi, cabo verde/cape verde, cameroon,
    central african republic, chad, comoros/the comoros,
    democratic republic of the congo/congo democratic republic of the/congo (democratic republic of the)/dr congo/congo kinshasa,
    republic of the congo/congo/congo republic of the/congo (republic of the)/congo brazzaville,
    cote d'ivoire/ivory coast/cote divoire, djibouti, egypt, equatorial guinea, eritrea, eswatini/swaziland, ethiopia, gabon,
    gambia/the gambia, ghana, guinea, guinea-bissau/guinea bissau, kenya, lesotho, liberia, libya, madagascar, malawi, mali,
    mauritania, mauritius, morocco, mozambique, namibia, niger, nigeria, rwanda, sao tome and principe, senegal, seychelles,
    sierra leone, somalia, south africa, south sudan, sudan, tanzania, togo, tunisia, uganda, western sahara, zambia,
    zimbabwe""".replace("\n", " ").split(",")
)
