"""The words by which the guard knows a number, a date or a contradiction, lower-cased.

Languages: English, German, French, Spanish, Italian, Portuguese, Dutch, Swedish, Polish, Russian, Turkish, Arabic,
Hindi,
Korean, and for scripts without blanks (Chinese, Japanese) characters.
"""

from __future__ import annotations

# a value each; "one" is left out, for it is an article or a pronoun as often
_NUMBERS = {
    "2": "two zwei deux dos dois duas twee två dwa dwie два две iki 둘 twice",
    "3": "three drei trois tres tre três drie trzy три üç thrice",
    "4": "four vier quatre cuatro quattro quatro fyra cztery четыре dört",
    "5": "five fünf cinq cinco cinque vijf fem pięć пять beş",
    "6": "six sechs seis zes sześć шесть altı",
    "7": "seven sieben siete sette sete zeven sju siedem семь yedi",
    "8": "eight acht huit ocho otto oito åtta osiem восемь sekiz",
    "9": "nine neun neuf nueve nove negen nio dziewięć девять",
    "10": "ten zehn dix diez dieci dez tien dziesięć десять",
    "11": "eleven elf onze undici elva", "12": "twelve dozen zwölf douze doce dodici doze twaalf tolv dutzend",
    "13": "thirteen dreizehn treize trece tredici", "14": "fourteen vierzehn quatorze catorce",
    "15": "fifteen fünfzehn quinze quince",
    "16": "sixteen sechzehn seize", "17": "seventeen siebzehn", "18": "eighteen achtzehn", "19": "nineteen neunzehn",
    "20": "twenty zwanzig vingt veinte venti vinte twintig tjugo dwadzieścia двадцать yirmi",
    "30": "thirty dreissig dreißig trente treinta trenta trinta тридцать", "40": "forty vierzig quarante cuarenta quaranta сорок",
    "50": "fifty fünfzig cinquante cincuenta cinquanta", "60": "sixty sechzig soixante sesenta", "70": "seventy siebzig setenta",
    "80": "eighty achtzig ochenta", "90": "ninety neunzig noventa",
    "100": "hundred hundert cent cien cento honderd hundra сто", "1000": "thousand tausend mille mil duizend tusen тысяча",
    "1000000": "million million millionen millón milione milhão", "0": "zero null zéro cero",
    "0.5": "half halb hälfte moitié mitad metà metade", "0.25": "quarter viertel quart cuarto",
    "1st": "first erste erster premier première primero primera primo", "2nd": "second zweite zweiter deuxième segundo",
    "3rd": "third dritte dritter troisième tercero",
}  # fmt: skip
NUMBERS = {word: value for value, words in _NUMBERS.items() for word in words.split()}

# what a number counts: two numbers with two different ones are two; dates and ordinals have none
_UNITS = {
    "am": "a.m", "pm": "p.m", "%": "percent prozent procent pourcent",
    "mcg": "µg μg microgram micrograms", "mg": "milligram milligrams milligramm", "g": "gram grams gramm gramme grammes",
    "kg": "kilo kilos kilogram kilograms kilogramm", "t": "ton tons tonne tonnes tonnen", "lb": "lbs", "oz": "ounce ounces",
    "ml": "milliliter milliliters millilitre millilitres", "cl": "", "dl": "", "l": "liter liters litre litres litros",
    "mm": "millimeter millimeters", "cm": "centimeter centimeters centimetre centimetres",
    "m": "meter meters metre metres metros", "km": "kilometer kilometers kilometre kilometres kilómetros",
    "mile": "mi miles", "ft": "foot feet", "inch": "inches", "kb": "", "mb": "megabyte megabytes", "gb": "gigabyte gigabytes",
    "tb": "terabyte terabytes", "mhz": "", "ghz": "", "kw": "", "kwh": "", "kcal": "",
    "second": "s sec secs seconds sekunde sekunden", "minute": "min mins minutes minuten minutos", "ms": "milliseconds",
    "hour": "h hr hrs hours stunde stunden heure heures hora horas", "day": "days tag tage tagen jour jours día días",
    "night": "nights", "week": "weeks woche wochen semaine semaines semana semanas",
    "month": "months monat monate monaten mois mes meses", "year": "years jahr jahre jahren an ans año años",
    "dollar": "$ dollars usd", "euro": "€ euros eur", "pound": "£ pounds gbp", "yen": "¥ jpy", "franc": "francs chf",
    "rupee": "₹ rupees inr",
    "celsius": "°c", "fahrenheit": "°f",
}  # fmt: skip
UNITS = {word: unit for unit, words in _UNITS.items() for word in (unit, *words.split())}

_DATES = """
monday tuesday wednesday thursday friday saturday sunday tue wed thu fri
january february march april may june july august september october november december jan feb apr jun jul aug sep sept
oct nov dec
spring summer autumn fall winter today tomorrow yesterday tonight weekday weekend noon midnight
montag dienstag mittwoch donnerstag freitag samstag sonnabend sonntag januar februar märz mai juni juli oktober dezember
frühling frühjahr sommer herbst heute morgen gestern übermorgen
lundi mardi mercredi jeudi vendredi samedi dimanche janvier février mars avril juin juillet août septembre octobre
novembre décembre
printemps automne hiver aujourd'hui demain
lunes martes miércoles jueves viernes sábado domingo enero febrero marzo abril mayo junio julio agosto septiembre
octubre noviembre diciembre
primavera verano otoño invierno hoy mañana ayer
lunedì martedì mercoledì giovedì venerdì sabato domenica gennaio febbraio aprile maggio giugno luglio settembre
ottobre dicembre oggi domani ieri
segunda terça quarta quinta sexta janeiro fevereiro março maio junho julho setembro outubro novembro dezembro hoje
amanhã ontem
maandag dinsdag woensdag donderdag vrijdag zaterdag zondag januari februari maart mei augustus vandaag morgen gisteren
måndag tisdag onsdag torsdag fredag lördag söndag idag imorgon igår
poniedziałek wtorek środa czwartek piątek sobota niedziela dzisiaj dziś jutro wczoraj
понедельник вторник среда четверг пятница суббота воскресенье январь февраль март апрель май июнь июль август сентябрь
октябрь ноябрь декабрь
января февраля марта апреля мая июня июля августа сентября октября ноября декабря сегодня завтра вчера
pazartesi salı çarşamba perşembe cuma cumartesi pazar bugün yarın dün
"""
DATES = frozenset(_DATES.split())

_NEGATIONS = """
not no never none nobody nothing nowhere neither nor without cannot cant dont doesnt didnt isnt arent wasnt werent
wont wouldnt
shouldnt couldnt hasnt havent hadnt aint mustnt neednt hardly barely
nicht kein keine keinen keinem keiner keines nie niemals nichts niemand nirgends ohne weder
ne n pas jamais aucun aucune rien sans ni
nunca jamás nada nadie ningún ninguno ninguna sin tampoco
non mai nulla niente nessuno nessuna senza né
não nao nem ninguém sem nenhum nenhuma jamais
niet geen nooit niets niemand zonder
inte ej aldrig ingen inget inga utan
nie nigdy nic nikt bez żaden
не нет никогда ничего никто без ни
değil hiç yok asla
لا ليس ليست لم لن بدون غير ما
नहीं मत बिना कभी
안 못 없이 아니다 않는다 않다 없다
"""
NEGATIONS = frozenset(_NEGATIONS.split())
# as parts of words: "好きではない", "좋아하지"
NEGATING_PARTS = ("ない", "ません", "なかった", "지 않", "지 못", "지않", "지못", "않", "없")
NEGATING_CHARACTERS = frozenset("不没沒无無未别別非")
# a verb's negative ending, where the other text has the verb with another one
NEGATING_ENDINGS = ("mez", "maz", "miyor", "mıyor", "medi", "madı")
NEGATING_PREFIXES = ("un", "dis", "in", "im", "ir", "il", "non", "un-", "non-", "mis")

_OPPOSITES = """
like/hate love/hate like/dislike enjoy/hate before/after more/less always/never often/never often/rarely on/off
with/without
win/lose won/lost accept/reject accepted/rejected accept/refuse allow/forbid allows/forbids allow/deny all/none all/no
everybody/nobody everyone/nobody everything/nothing everyone/no increase/decrease up/down left/right open/closed
open/close opens/closes
start/stop starts/stops started/stopped begin/end begins/ends join/leave joined/quit joined/left join/quit buy/sell
bought/sold
true/false good/bad best/worst better/worse hot/cold early/late earlier/later high/low higher/lower big/small
larger/smaller
cheap/expensive male/female married/single married/divorced alive/dead present/absent pass/fail passed/failed
enabled/disabled
enable/disable public/private rich/poor loves/hates likes/hates likes/dislikes enjoys/hates prefers/avoids prefer/avoid
includes/excludes include/exclude agree/disagree agrees/disagrees agreed/disagreed max/min maximum/minimum above/below
over/under
first/last both/neither inside/outside can/cannot remember/forget happy/sad happy/unhappy healthy/ill healthy/sick
immer/nie oft/nie oft/selten mit/ohne mag/hasst liebt/hasst vor/nach mehr/weniger an/aus alle/keine erlaubt/verboten
toujours/jamais souvent/jamais avec/sans aime/déteste avant/après plus/moins tous/aucun
siempre/nunca con/sin ama/odia antes/después más/menos todos/nadie sempre/mai con/senza prima/dopo più/meno
sempre/nunca com/sem antes/depois mais/menos altijd/nooit met/zonder voor/na meer/minder alltid/aldrig med/utan
före/efter
zawsze/nigdy przed/po więcej/mniej всегда/никогда до/после больше/меньше любит/ненавидит с/без
"""
OPPOSITES = frozenset(frozenset(pair.split("/")) for pair in _OPPOSITES.split())

# words that say little: one of them for another is no other fact, and at a sentence's start they are no name
_FUNCTION = """
a an the this that these those some any each every and or but so as at by for from in into of on to with about than
then too very
really quite also just still even only well currently usually often mostly now please ever i me my mine we us our you
your he him
his she her hers it its they them their who whom whose which what where when how why there here is am are was were be
been being
isn't has have had do does did doing can could will would shall should may might must user users user's users' one's
because if while
der die das den dem des ein eine einen einem einer eines und oder aber als am an auf aus bei für im in ist mit nach
sich sehr so um
von vor wird zu zum zur er sie es ich wir ihr gern gerne auch noch schon hat haben war sind nutzer nutzerin benutzer
nutzers
le la les l un une des du de d et ou mais à a au aux en dans par pour sur avec est sont il elle ils elles on je tu
nous vous se s son
sa ses mon ma mes bien très aussi utilisateur qu que qui c ce cet cette
el los las unos unas y o pero al del en por para con es son su sus mi mis se le me muy mucho usuario que lo
il lo gli i uno una e ma del della di da in con su per è sono suo sua molto utente all dell nel
o os as um uma e mas do da dos das em no na nos nas por para com é são seu sua muito usuário utilizador que
de het een en of maar van op met voor is zijn hij zij ik erg heel ook gebruiker
och men att en ett den det på av för med är han hon jag mycket användaren
i w z na do od jest się to jej jego bardzo użytkownik ma
и а но в во на с со к у о об он она оно они я мы его её ее очень пользователь есть это же пользователя
ve bir bu şu o için ile çok kullanıcı
в на و في من على إلى مع هو هي جدا المستخدم
का की के को में है हैं और से पर वह यह बहुत उपयोगकर्ता
은 는 이 가 을 를 에 그 그는 그녀는 사용자는 정말 아주
"""
FUNCTION = frozenset(_FUNCTION.split())
FUNCTION_CHARACTERS = frozenset("的了是在很也都就着著地得和与與はがをにでとのもですてたくいるとっ非常，。、！？")
